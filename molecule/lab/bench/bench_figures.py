# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cost of a sync that has nothing to bring, and of hashing everything again."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench_lab import HERE, Host, playbook

REPOSITORY, COMMIT = "bench/noop", "c" * 40
BYTES, LARGE, SMALL = 30_000_000_000, 60, 540
"""As large as a body of 30 GB, but in many more files."""
HASHED_FILES = 8
RUNS = 3


@dataclass(frozen=True)
class Noop:
    files: int
    module: float
    """Seconds of the module on one host, from the start of its Python to its end; the median."""
    role: float
    """Seconds that the role adds to a playbook over all hosts."""
    hosts: int


def noop(hosts: Sequence[Host]) -> Noop:
    store = "/srv/sparkfleet"
    each = BYTES // LARGE
    sizes = {f"model-{number:05}.safetensors": each for number in range(LARGE)}
    sizes |= {f"parts/{number:05}.json": 1000 for number in range(SMALL)}
    files = {
        name: {"size": size, "sha256": hashlib.sha256(name.encode()).hexdigest()}
        for name, size in sizes.items()
    }
    snapshot = {"repository": REPOSITORY, "commit": COMMIT, "files": files}
    for host in hosts:
        host.helper("sparse", stdin={"store": store, **snapshot})
    options = {"store": store, "snapshots": [snapshot]}
    module = _median(lambda: _settled(hosts[0], options))
    variables: dict[str, Any] = {
        "model_sync_models": {"body": {**snapshot, "revision": "main"}},
        "model_sync_check_pair": False,
        "model_sync_store": store,
        "bench_hosts": ",".join(host.name for host in hosts),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps(variables))
        file.flush()

        def play(role: bool) -> None:
            playbook(HERE / "role.yml", "-e", f"@{file.name}", "-e", json.dumps({"bench_role": role}))

        play(True)
        role = _median(lambda: play(True)) - _median(lambda: play(False))
    return Noop(len(files), module, role, len(hosts))


def _settled(host: Host, options: dict[str, Any]) -> None:
    if not host.module("hf_snapshot_info", **options)["settled"]:
        raise AssertionError(f"{host.name}: expected nothing to do, seen something to do")


@dataclass(frozen=True)
class Rehash:
    bytes: int
    module: float
    sha256sum: float
    openssl: float


def rehash(host: Host, megabytes: int) -> Rehash:
    """Hash in turns, and give the best of several runs. All files are in the page cache."""
    store = "/srv/bench-rehash"
    folder = f"{store}/models/bench--rehash/{COMMIT}"
    sizes = {f"{number}.bin": megabytes * 1_000_000 // HASHED_FILES for number in range(HASHED_FILES)}
    files = json.loads(host.helper("payload", stdin={"folder": folder, "files": sizes}))
    snapshots = [{"repository": "bench/rehash", "commit": COMMIT, "files": files}]
    options = {"store": store, "snapshots": snapshots, "max_workers": os.cpu_count()}
    # The module remembers what it hashed, so that there is something to settle.
    host.module("hf_snapshot", disk_reserve=0, **options)
    _settled(host, options)

    def hashed() -> None:
        result = host.module("hf_snapshot_info", verify="full", hash=True, **options)
        if result["look"][0]["verified_bytes"] != sum(sizes.values()):
            raise AssertionError(f"{host.name}: expected every byte to be hashed, seen {result}")

    def by(command: str) -> Callable[[], Any]:
        return lambda: host.shell(
            f"printf '%s\\0' {folder}/*.bin | xargs -0 -n 1 -P {os.cpu_count()} {command}"
        )

    works = hashed, by("sha256sum"), by("openssl dgst -sha256")
    best = [
        min(times) for times in zip(*[[_seconds(work) for work in works] for _ in range(RUNS)], strict=True)
    ]
    host.shell(f"rm -rf {store}")
    return Rehash(sum(sizes.values()), *best)


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _median(work: Callable[[], Any]) -> float:
    return sorted(_seconds(work) for _ in range(RUNS))[RUNS // 2]
