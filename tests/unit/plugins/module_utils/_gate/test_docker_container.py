# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's state, log and files, against a fake engine and a real directory tree."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate import container as gate_container
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate import docker_container
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.container import (
    LONGEST_LINE,
    FileSeen,
    LogLine,
    State,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.docker_container import (
    DockerContainer,
    EngineError,
)
from helpers.gate import process_with_links

INSPECT = {
    "Id": "a" * 64,
    "Image": "sha256:1",
    "HostConfig": {},
    "Path": "vllm",
    "Args": ["serve", "/models/body"],
    "RestartCount": 2,
    "State": {
        "Status": "running",
        "StartedAt": "2026-11-23T21:35:09.61206776Z",
        "Pid": 42,
        "ExitCode": 0,
        "OOMKilled": False,
        "Error": "",
    },
    "Config": {
        "Image": "vllm/vllm-openai@sha256:1",
        "Env": ["VLLM_API_KEY=from-the-container", "PATH=/usr/bin"],
    },
    "Mounts": [{"Source": "/srv/p.py", "Destination": "/opt/p.py"}],
}


class FakeApi:
    """The calls of the engine that the gate makes."""

    def __init__(self) -> None:
        self.archive: bytes | None = None
        self.log = b""
        self.asked: dict[str, Any] = {}

    def inspect_container(self, name: str) -> dict[str, Any]:
        if name == "missing":
            raise docker.errors.NotFound("no such container")
        if name == "down":
            raise docker.errors.APIError("server error")
        return INSPECT

    def logs(self, name: str, **options: Any) -> bytes:
        self.asked = options
        return self.log

    def get_archive(self, name: str, path: str) -> tuple[list[bytes], dict[str, Any]]:
        if self.archive is None:
            raise docker.errors.NotFound("no such file")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo("p.py")
            member.size = len(self.archive)
            archive.addfile(member, io.BytesIO(self.archive))
        return [buffer.getvalue()], {}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(docker_container.docker, "from_env", lambda **options: SimpleNamespace(api=fake))
    return fake


def test_state(api: FakeApi) -> None:
    state = DockerContainer("vllm").inspect()
    assert state == State(
        id="a" * 64,
        status="running",
        started_at="2026-11-23T21:35:09.61206776Z",
        pid=42,
        restarts=2,
        image="vllm/vllm-openai@sha256:1",
        argv=("vllm", "serve", "/models/body"),
        mounts={"/opt/p.py": "/srv/p.py"},
    )
    assert state.started == pytest.approx(1795469709.612067, abs=1e-4)


@pytest.mark.parametrize(
    ("environment", "rdma"),
    [
        (["NCCL_IB_HCA=rocep1s0f0,roceP2p1s0f0", "NCCL_IB_DISABLE=0"], "rocep1s0f0,roceP2p1s0f0"),
        (["NCCL_IB_HCA=" + "x" * 9999], "x" * 500),
        (["NCCL_IB_HCA=rocep1s0f0", "NCCL_IB_DISABLE=1"], ""),
        (["NCCL_IB_HCA=rocep1s0f0", "NCCL_NET=Socket"], ""),
        (["NCCL_IB_HCA"], ""),
        (None, ""),
    ],
)
def test_the_rdma_devices_that_nccl_was_given(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, environment: list[str] | None, rdma: str
) -> None:
    seen = INSPECT | {"Config": {"Image": "vllm", "Env": environment}}
    monkeypatch.setattr(api, "inspect_container", lambda name: seen)
    state = DockerContainer("vllm").inspect()
    assert state is not None and state.rdma == rdma


def test_no_container_is_not_no_engine(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DockerContainer("missing").inspect() is None
    with pytest.raises(EngineError):
        DockerContainer("down").inspect()

    def refuse(**options: Any) -> None:
        raise docker.errors.DockerException("connection refused")

    monkeypatch.setattr(docker_container.docker, "from_env", refuse)
    with pytest.raises(EngineError, match="connection refused"):
        DockerContainer("vllm")


def test_log_is_masked_and_keeps_its_times(api: FakeApi) -> None:
    api.log = (
        b"2026-11-23T21:35:10.000000001Z api_key: ['given-key-1'] and from-the-container\n"
        b"2026-11-23T21:35:11.000000001Z a token hf_AbCdEfGhIjKlMnOpQrStUv and \xff\n"
    )
    container = DockerContainer("vllm", ["given-key-1", ""])
    container.inspect()
    assert container.log(1.5, until=9.0, tail=5) == [
        LogLine("2026-11-23T21:35:10.000000001Z", "api_key: ['***'] and ***"),
        LogLine("2026-11-23T21:35:11.000000001Z", "a token hf_*** and \ufffd"),
    ]
    assert (api.asked["since"], api.asked["until"], api.asked["tail"]) == (1.5, 9.0, 5)


def test_a_line_without_end_is_read_to_a_bound(api: FakeApi) -> None:
    api.log = b"2026-11-23T21:35:10.000000001Z " + b"x" * (LONGEST_LINE + 5)
    (line,) = DockerContainer("vllm").log(1.0)
    assert line.text == "x" * LONGEST_LINE


def test_a_progress_bar_is_one_line_and_its_last_state_counts(api: FakeApi) -> None:
    api.log = b"2026-11-23T21:35:10.000000001Z Loading: 0%\rLoading: 50%\rLoading: 100%\r\n"
    assert DockerContainer("vllm").log(1.0) == [LogLine("2026-11-23T21:35:10.000000001Z", "Loading: 100%")]


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return process_with_links(tmp_path)


def test_file_of_the_process(api: FakeApi, proc: Path) -> None:
    container = DockerContainer("vllm", proc=proc)
    state = container.inspect()
    assert state is not None
    seen = container.file(state, "/opt/vllm/p.py")
    assert seen.md5 == hashlib.md5(b"inside").hexdigest()
    assert seen.sha256 == hashlib.sha256(b"inside").hexdigest()
    assert seen.changed == os.stat(proc / "42/root/usr/lib/python3.12/vllm/p.py").st_ctime
    assert container.file(state, "/nope").error == "no such file"
    assert container.file(state, "/opt").error == "not a plain file"
    assert "too many links" in str(container.file(state, "/opt/loop").error)


def test_file_through_the_engine_has_no_age(api: FakeApi, tmp_path: Path) -> None:
    api.archive = b"inside"
    container = DockerContainer("vllm", proc=tmp_path)
    state = container.inspect()
    assert state is not None
    assert container.file(state, "/p.py") == FileSeen(
        hashlib.md5(b"inside").hexdigest(), hashlib.sha256(b"inside").hexdigest(), None
    )
    api.archive = None
    assert container.file(state, "/p.py").error == "no such file"


def test_file_of_the_host(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"x" * 3_000_000)
    container = DockerContainer("vllm")
    assert container.host_file(str(tmp_path / "p")).sha256 == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert container.host_file(str(tmp_path / "q")).error == "no such file"


def test_a_file_out_of_the_archive_ends(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1 << 20)

    monkeypatch.setattr(gate_container, "LARGEST_FILE", 3 << 20)
    monkeypatch.setattr(api, "get_archive", lambda name, path: (endless(), {}))
    seen = DockerContainer("vllm").file(State(id="1", status="exited", started_at="x"), "/p.py")
    assert "more than 3 MiB" in (seen.error or "")
