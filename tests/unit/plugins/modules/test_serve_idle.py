# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting until a server has nothing left to answer."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import basic
from ansible_collections.sparkfleet.vllm.plugins.modules import serve_idle
from helpers import printed
from helpers.server import Handler, served


class Busy(Handler):
    """Answers with the counts that it is given, one after the other, and then with the last."""

    counts: list[str]
    lock = threading.Lock()

    def do_GET(self) -> None:
        with self.lock:
            text = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        self.answer(200, text.encode())


def counters(running: int, waiting: int = 0) -> str:
    return f'vllm:num_requests_running{{engine="0"}} {running}\nvllm:num_requests_waiting {waiting}\n'


@contextlib.contextmanager
def busy(*counts: str) -> Iterator[str]:
    """Address of a server that has these counts, look after look."""
    Busy.counts = list(counts)
    with served(ThreadingHTTPServer(("127.0.0.1", 0), Busy)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(serve_idle, "PAUSE", 0.01)
    warned: list[str] = []
    monkeypatch.setattr(basic.AnsibleModule, "warn", lambda module, text: warned.append(text))

    def ask(url: str, **given: Any) -> dict[str, Any]:
        warned.clear()
        with patch_module_args({"base_url": url, **given}), pytest.raises(SystemExit):
            serve_idle.main()
        return printed.result(capsys.readouterr().out) | {"warned": list(warned)}

    return ask


def test_it_waits_for_what_runs_and_for_what_is_queued(call: Any) -> None:
    with busy(counters(2, 1), counters(1), counters(0, 1), counters(0)) as url:
        result = call(url)
    assert (result["requests"], result["warned"], Busy.counts) == (0, [], [counters(0)])


def test_when_the_time_is_over_it_says_what_a_stop_cuts(call: Any) -> None:
    with busy(counters(2, 1)) as url:
        result = call(url, timeout=0)
    assert result["requests"] == 3
    assert result["warned"] == [
        "3 requests had not ended after 0 s; the stop of the server cuts what is left of them"
    ]


def test_a_check_looks_once(call: Any) -> None:
    with busy(counters(2), counters(0)) as url:
        result = call(url, _ansible_check_mode=True)
    assert (result["requests"], result["warned"], len(Busy.counts)) == (2, [], 1)


def test_a_server_that_is_gone_or_no_server_of_ours_has_nothing_to_wait_for(call: Any) -> None:
    assert call("http://127.0.0.1:9")["requests"] == 0
    with busy("<html>") as url:
        assert call(url)["requests"] == 0
