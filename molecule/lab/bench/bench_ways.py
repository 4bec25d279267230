# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to bring one snapshot from the first host to others. In each, the receiver checks the sha256 of every file and puts
the snapshot in its place; that counts in its time.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from bench_lab import Host, Measured, measured

STORE = "/dev/shm/bench"
REPOSITORY, COMMIT = "bench/payload", "b" * 40
FOLDER = f"{STORE}/models/bench--payload"
SNAPSHOT = f"{FOLDER}/{COMMIT}"
SUMS = f"{STORE}/sums"
SSH = "ssh -i ~/.ssh/bench -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
SHARES = {"model-1.safetensors": 0.5, "model-2.safetensors": 0.3, "model-3.safetensors": 0.19}


@dataclass
class Payload:
    files: dict[str, Any]
    torrents: dict[str, str] = field(default_factory=dict)
    described: float = 0.0
    """Seconds that the first description took."""

    @property
    def size(self) -> int:
        return sum(file["size"] for file in self.files.values())

    @property
    def snapshots(self) -> list[dict[str, Any]]:
        return [{"repository": REPOSITORY, "commit": COMMIT, "files": self.files}]


def make(first: Host, megabytes: int) -> Payload:
    """The snapshot on the first host: a few large files and, as models have them, small and empty ones. Random bytes.

    hf_snapshot vouches for it there, and snapshot_torrent describes it, as a sync would have left it.
    """
    first.shell(f"rm -rf {STORE}; mkdir -p {STORE}; chmod 1777 {STORE}")
    sizes = {name: int(share * megabytes * 1e6) for name, share in SHARES.items()}
    sizes |= {"config.json": 1200, "tokenizer.json": int(0.01 * megabytes * 1e6), ".gitattributes": 0}
    payload = Payload({})
    text = first.helper("payload", stdin={"folder": SNAPSHOT, "files": sizes})
    payload.files = json.loads(text)
    first.module("hf_snapshot", store=STORE, snapshots=payload.snapshots, disk_reserve=0)
    began = time.time()
    payload.torrents = first.module("snapshot_torrent", store=STORE, snapshots=payload.snapshots)["torrents"]
    payload.described = time.time() - began
    return payload


def clear(hosts: Sequence[Host], payload: Payload) -> None:
    """Remove the snapshot from the receivers, and give them the sums for checking rsync's copies."""
    sums = "".join(f"{file['sha256']}  {name}\n" for name, file in payload.files.items())

    def one(host: Host) -> None:
        host.shell(f"rm -rf {STORE}; mkdir -p {FOLDER}; chown -R spark: {STORE}")
        host.run("tee", SUMS, user="spark", stdin=sums)

    _at_once(one, hosts)


def _at_once(work: Callable[[Host], Any], hosts: Sequence[Host]) -> list[Any]:
    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return list(pool.map(work, hosts))


# -- rsync


def _copy(source: Host, target: Host) -> None:
    """rsync over ssh into a staging folder, sha256 there, then into its place."""
    incoming = f"{FOLDER}/.incoming"
    source.shell(
        f"rsync -a --whole-file -e '{SSH}' {SNAPSHOT}/ spark@{target.address}:{incoming}/", user="spark"
    )
    target.shell(f"cd {incoming} && sha256sum --quiet -c {SUMS} && mv {incoming} {SNAPSHOT}", user="spark")


def star(first: Host, receivers: Sequence[Host], payload: Payload) -> Measured:
    """Copy from the first host to all others at the same time."""
    clear(receivers, payload)
    with measured(first) as result:
        _at_once(lambda host: _copy(first, host), receivers)
    return result


def waves(first: Host, receivers: Sequence[Host], payload: Payload) -> Measured:
    """In each wave every host that has the snapshot gives it to one that has not."""
    clear(receivers, payload)
    with measured(first) as result:
        having, waiting = [first], list(receivers)
        while waiting:
            pairs = dict(zip(waiting, having, strict=False))
            _at_once(lambda host, pairs=pairs: _copy(pairs[host], host), list(pairs))  # type: ignore[misc]
            having += pairs
            waiting = waiting[len(pairs) :]
    return result


# -- the collection


def swarm(first: Host, receivers: Sequence[Host], payload: Payload) -> Measured:
    """Run snapshot_peer on every host. The receivers wait for the first host, and the time begins when that one starts. So
    it does not matter how long this machine takes to start so many processes.
    """
    clear(receivers, payload)
    secret = secrets.token_hex(16)
    peers = {host.name: host.address for host in (first, *receivers)}

    def start(host: Host) -> None:
        host.module(
            "snapshot_peer",
            state="started",
            store=STORE,
            snapshots=payload.snapshots,
            name=host.name,
            address=host.address,
            peers=peers,
            swarm=secret,
            torrents=payload.torrents,
            disk_reserve=0,
        )

    def stop(host: Host) -> None:
        host.module("snapshot_peer", state="stopped", store=STORE)

    _at_once(start, receivers)
    time.sleep(2)
    try:
        with measured(first) as result:
            began = time.time()
            start(first)
            result.seconds = max(
                float(end) for end in _at_once(lambda host: host.helper("wait", STORE, SNAPSHOT), receivers)
            )
            result.seconds -= began
    finally:
        _at_once(stop, (first, *receivers))
    for host in receivers:
        host.shell(f"cd {SNAPSHOT} && sha256sum --quiet -c {SUMS}")
    return result


WAYS: dict[str, Callable[[Host, Sequence[Host], Payload], Measured]] = {
    "star": star,
    "waves": waves,
    "BitTorrent v2": swarm,
}
