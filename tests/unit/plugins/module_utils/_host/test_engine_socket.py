# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's end and its log, over the engine's socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import engine_socket
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.engine_socket import EngineError
from helpers.server import Handler, UnixServer, served


class Engine(Handler):
    status, body = 200, b""
    asked: list[str]

    def address_string(self) -> str:
        return "engine"

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        self.answer(self.status, self.body)

    do_POST = do_GET


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[type[Engine]]:
    kind = type("Kind", (Engine,), {"asked": []})
    with served(UnixServer(str(tmp_path / "socket"), kind)):
        yield kind


@pytest.mark.parametrize("status", [204, 404, 409])
def test_a_container_is_ended_at_once_and_one_that_is_not_there_is_no_error(
    engine: type[Engine], tmp_path: Path, status: int
) -> None:
    engine.status = status
    engine_socket.kill(str(tmp_path / "socket"), "a/../b", 5)
    assert engine.asked == ["POST /containers/a%2F..%2Fb/kill?signal=KILL"]


def test_an_engine_that_cannot_end_it_is_said(engine: type[Engine], tmp_path: Path) -> None:
    engine.status, engine.body = 500, b'{"message": "did not exit"}'
    with pytest.raises(EngineError, match="did not exit"):
        engine_socket.kill(str(tmp_path / "socket"), "vllm", 5)


FRAMES = b"\x01\0\0\0\0\0\0\x04one\n" + b"\x02\0\0\0\0\0\0\x04two\n"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (FRAMES, b"one\ntwo\n"),
        (FRAMES[:-2], b"one\ntw"),
        (FRAMES[:15], b"one\n"),
        (b"2026-11-30T10:00:00Z of a terminal\n", b"2026-11-30T10:00:00Z of a terminal\n"),
        (b"", b""),
    ],
    ids=["whole", "cut in a text", "cut in a head", "terminal", "empty"],
)
def test_the_text_of_a_log(engine: type[Engine], tmp_path: Path, body: bytes, text: bytes) -> None:
    engine.body = body
    assert engine_socket.log(str(tmp_path / "socket"), "vllm", 7, 100, 5) == text
    assert engine.asked[0].endswith("/containers/vllm/logs?stdout=1&stderr=1&timestamps=1&tail=7")


def test_a_log_without_end_is_cut(engine: type[Engine], tmp_path: Path) -> None:
    engine.body = b"x" * 10_000
    assert len(engine_socket.log(str(tmp_path / "socket"), "vllm", 7, 100, 5)) == 100
