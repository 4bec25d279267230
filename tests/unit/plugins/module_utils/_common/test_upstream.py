# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One question to a server of somebody else: bounded in bytes and time, whatever it does."""

from __future__ import annotations

import contextlib
import time
from http.server import ThreadingHTTPServer

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import bounded, upstream
from helpers.hostile_server import dribbling
from helpers.server import Handler, served

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(upstream.time, "sleep", waited.append)
    return waited


@pytest.mark.parametrize(
    ("begin", "piece"),
    [(OK, b"X-A: b\r\n"), (OK + b"\r\n", b" "), (OK + b"Content-Length: 999999\r\n\r\n", b" ")],
    ids=["headers", "body", "a length"],
)
def test_an_answer_that_dribbles_is_none(begin, piece):
    began = time.monotonic()
    with (
        dribbling(begin, piece, every=0.05) as url,
        pytest.raises(upstream.Unreachable, match=r"expected an answer, seen .*no end"),
    ):
        upstream.ask("GET", url, seconds=0.3)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("begin", [OK + b"\r\n", OK + b"Content-Length: 99999999999\r\n\r\n"])
def test_an_answer_without_end_is_not_read_to_the_end(begin):
    with (
        dribbling(begin, b"x" * 65536, every=0) as url,
        pytest.raises(upstream.Unusable, match="at most 100000"),
    ):
        upstream.ask("GET", url, limit=100_000)


def test_a_server_that_wants_a_long_wait_is_not_waited_for(waits):
    begin = b"HTTP/1.1 429 Busy\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n"
    with (
        dribbling(begin, b"", every=0.05) as url,
        pytest.raises(upstream.Unreachable, match="asks to wait 3600 s"),
    ):
        upstream.ask("GET", url)
    assert waits == []


def test_a_proxy_is_bounded_too(monkeypatch):
    with dribbling(OK, b"X-A: b\r\n", every=0.05) as url:
        monkeypatch.setenv("http_proxy", url)
        with pytest.raises(upstream.Unreachable, match="no end"):
            upstream.ask("GET", "http://registry.example/v2/", seconds=0.3)


@contextlib.contextmanager
def redirecting():
    """(address, what each request had as Authorization): the address leads to another name of the same machine."""
    seen = []

    class Redirects(Handler):
        def do_GET(self):
            seen.append(self.headers["Authorization"])
            if self.path == "/here":
                self.answer(302, Location=f"http://localhost:{self.connection.getsockname()[1]}/there")
            else:
                self.answer(200)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirects)
    with served(server):
        yield f"http://127.0.0.1:{server.server_address[1]}/here", seen


def test_a_netrc_file_gives_nothing_not_even_after_a_redirect(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text(
        "machine localhost login a password b\nmachine 127.0.0.1 login a password b\n"
    )
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with redirecting() as (url, seen):
        assert upstream.ask("GET", url).status == 200
        assert bounded.session().get(url, timeout=5).status_code == 200
        assert seen == [None] * 4
        # What was given for the one address does not go to the other.
        upstream.ask("GET", url, authorization="Bearer t")
        assert seen[4:] == ["Bearer t", None]
