"""Hosts of a fleet on 127.0.0.0/8: a store each, and the real modules, whose peers are processes of their own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import manifest as model_manifest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import snapshot as snapshots
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.compare import scan
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.ensure import Options, check
from ansible_collections.sparkfleet.vllm.plugins.module_utils._swarm import peer
from ansible_collections.sparkfleet.vllm.plugins.modules import snapshot_peer, snapshot_torrent

COMMIT = "c4bbb7689dc16de4aaa468647625a5a02f98e22f"
KIB, MIB = 1024, 1024 * 1024


def content(size: int, seed: str) -> bytes:
    """The same bytes for the same seed, and nothing that repeats."""
    return hashlib.shake_256(seed.encode()).digest(size)


def manifest(
    files: Mapping[str, bytes], repository: str = "org/body", commit: str = COMMIT
) -> dict[str, Any]:
    return {
        "repository": repository,
        "commit": commit,
        "files": {
            path: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in files.items()
        },
    }


def call(module: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    output = io.StringIO()
    mask = os.umask(0o022)
    try:
        with (
            patch_module_args(arguments),
            contextlib.redirect_stdout(output),
            pytest.raises(SystemExit),
        ):
            module.main()
    finally:
        os.umask(mask)
    answer = json.loads(output.getvalue().splitlines()[-1])
    answer.pop("invocation", None)
    return answer


def wait_for(condition: Callable[[], Any], within: float = 30.0, what: str = "") -> Any:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {within} s: {what or condition}")


class Host:
    def __init__(self, fleet: Fleet, name: str, address: str) -> None:
        self.fleet, self.name, self.address = fleet, name, address
        self.store = fleet.root / name

    def snapshot(self, lock: dict[str, Any]) -> snapshots.Snapshot:
        parsed = model_manifest.parse(lock["repository"], lock["commit"], lock["files"])
        return snapshots.Snapshot(str(self.store), parsed, 4, lambda text: None)

    def put(self, lock: dict[str, Any], files: Mapping[str, bytes]) -> Path:
        """The snapshot, promoted, hashed and in the stat cache."""
        snapshot = self.snapshot(lock)
        for path, data in files.items():
            (snapshot.path / path).parent.mkdir(parents=True, exist_ok=True)
            (snapshot.path / path).write_bytes(data)
        options = Options(str(self.store))
        check([snapshot.manifest], options)
        return snapshot.path

    def holds(self, lock: dict[str, Any], files: Mapping[str, bytes]) -> bool:
        path = self.snapshot(lock).path
        found = {name: (path / name).read_bytes() for name in scan(path)}
        return found == dict(files) and not self.snapshot(lock).partial.exists()

    def describe(self, *locks: dict[str, Any]) -> dict[str, Any]:
        return call(snapshot_torrent, {"snapshots": list(locks), "store": str(self.store)})

    def start(self, *locks: dict[str, Any], **more: Any) -> dict[str, Any]:
        arguments = {
            "state": "started",
            "snapshots": list(locks),
            "store": str(self.store),
            "name": self.name,
            "address": self.address,
            "port": self.fleet.port,
            "peers": {host.name: host.address for host in self.fleet.hosts},
            "swarm": self.fleet.swarm,
            "torrents": self.fleet.torrents,
            "disk_reserve": 0,
            "idle": 20,
            **more,
        }
        return call(snapshot_peer, {name: value for name, value in arguments.items() if value is not None})

    def stop(self) -> dict[str, Any]:
        return call(snapshot_peer, {"state": "stopped", "store": str(self.store)})

    def kill(self) -> None:
        pid = peer.running(str(self.store))
        assert pid
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: peer.running(str(self.store)) is None)

    def status(self) -> dict[str, Any]:
        return peer.status(str(self.store))

    def ended(self, state: str = "whole", within: float = 30.0) -> dict[str, Any]:
        """The status once the peer has got to a result, which is `state`."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: self.status().get("state") in ("whole", "failed"), within)
        found = self.status()
        assert found["state"] == state, found
        return found


class Fleet:
    def __init__(self, root: Path, count: int) -> None:
        self.root = root
        self.swarm = secrets.token_hex(16)
        self.torrents: dict[str, str] = {}
        # A port that is free now on one address is on the others of this test's own.
        third = secrets.randbelow(250) + 1
        with socket.socket() as probe:
            probe.bind((f"127.77.{third}.1", 0))
            self.port = probe.getsockname()[1]
        self.hosts = [Host(self, f"spark-{n}", f"127.77.{third}.{n}") for n in range(1, count + 1)]

    def describe(self, host: Host, *locks: dict[str, Any]) -> None:
        answer = host.describe(*locks)
        assert "torrents" in answer, answer
        self.torrents.update(answer["torrents"])

    def close(self) -> None:
        for host in self.hosts:
            host.stop()
