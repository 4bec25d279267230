"""Real peers, processes of their own on 127.0.0.0/8, that the real modules start and end."""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import subprocess
import time
from functools import partial
from pathlib import Path

import libtorrent
import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import ensure as ensuring
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import pieces
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import snapshot as snapshots
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.compare import scan, signature
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.ensure import Options, look
from ansible_collections.sparkfleet.vllm.plugins.module_utils._swarm import peer as swarm_peer
from ansible_collections.sparkfleet.vllm.plugins.module_utils._swarm import session, torrent
from helpers.swarm import COMMIT, KIB, MIB, Fleet, content, manifest, wait_for

FILES = {
    "config.json": b"{}",
    "empty": b"",
    "sub/one-block": content(16 * KIB, "1"),
    "sub/tail": content(16 * KIB + 1, "2"),
    "model-1.safetensors": content(3 * MIB + 5, "3"),
    "model-2.safetensors": content(2 * MIB, "4"),
}
LOCK = manifest(FILES)
SIZE = sum(map(len, FILES.values()))
PIECE = pieces.piece_size(SIZE)
SLOW = 800 * KIB
"""Bytes a second that leave a throttled peer: enough time to do something in the middle."""


@pytest.fixture
def make(tmp_path):
    """Fleets whose peers end with the test."""
    fleets: list[Fleet] = []

    def make(count):
        fleets.append(Fleet(tmp_path / f"fleet-{len(fleets)}", count))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.close()


@pytest.fixture
def fleet(make):
    """The first of four hosts has it."""
    fleet = make(4)
    fleet.hosts[0].put(LOCK, FILES)
    fleet.describe(fleet.hosts[0], LOCK)
    return fleet


@pytest.fixture
def throttled(monkeypatch):
    """What peers started within it send is slow; a peer is a fork of this process."""

    def apply(rate):
        add = session.Swarm._add

        def throttle(self, manifest, *rest, **more):
            add(self, manifest, *rest, **more)
            self._torrents[manifest.commit].handle.set_upload_limit(rate)

        monkeypatch.setattr(session.Swarm, "_add", throttle)

    return apply


def damage(path: Path, offset: int = 0) -> None:
    """Other bytes of the same size under the same mtime: what a disk does."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"damage")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_one_has_all_get(fleet):
    first, *others = fleet.hosts
    for host in fleet.hosts:
        answer = host.start(LOCK)
        assert (answer["changed"], answer["address"], answer["port"]) == (True, host.address, fleet.port)
        assert answer["pid"] == swarm_peer.running(str(host.store))
    for host in others:
        status = host.ended()
        assert host.holds(LOCK, FILES)
        assert (status["done"], status["total"], status["problem"]) == (SIZE, SIZE, "")
        assert sum(status["from"].values()) >= SIZE and set(status["from"]) < {
            each.name for each in fleet.hosts
        }
        assert (status["snapshots"][0]["state"], status["snapshots"][0]["fetched_bytes"]) == ("fetched", SIZE)
        assert first.name not in status["to"] and host.name not in status["from"]
    seen = first.stop()
    assert seen["changed"] and seen["status"]["state"] == "whole" and seen["status"]["from"] == {}
    assert seen["status"]["snapshots"][0]["state"] == "present"
    assert first.stop() == {"changed": False, "status": seen["status"]}


def test_what_came_is_remembered(fleet, monkeypatch):
    """Neither the flat hashes nor the piece hashes are made again: the host can describe, and settle, at once."""
    first, second, *_ = fleet.hosts
    first.start(LOCK)
    second.start(LOCK)
    second.ended()
    (seen,) = look([second.snapshot(LOCK).manifest], Options(str(second.store)))
    assert not seen.changed
    monkeypatch.setattr(torrent, "hash_file", None)
    assert second.describe(LOCK)["torrents"] == fleet.torrents


def test_a_peer_has_nothing_of_the_session_that_started_it_and_shows_no_secret(fleet):
    host = fleet.hosts[0]
    ours, theirs = os.pipe()
    os.set_inheritable(theirs, True)
    pid = host.start(LOCK)["pid"]
    proc = Path(f"/proc/{pid}")
    os.close(theirs)
    assert os.read(ours, 1) == b""  # nobody else holds the other end
    os.close(ours)
    assert {os.readlink(proc / "fd" / str(number)) for number in range(3)} == {"/dev/null"}
    assert os.getsid(pid) != os.getsid(0) and os.readlink(proc / "cwd") == "/"
    for place in (swarm_peer.status_path(str(host.store)), proc / "cmdline", proc / "environ"):
        assert fleet.swarm.encode() not in place.read_bytes()
    assert fleet.swarm not in json.dumps(host.stop())


def test_an_earlier_peer_gives_way(fleet):
    host = fleet.hosts[0]
    before = host.start(LOCK)["pid"]
    after = host.start(LOCK)["pid"]
    assert before != after == swarm_peer.running(str(host.store))
    wait_for(lambda: not Path(f"/proc/{before}").exists())


def test_who_joins_later_gets_it_from_those_who_are_left(fleet):
    first, second, third, fourth = fleet.hosts
    for host in (first, second, third):
        host.start(LOCK)
    second.ended()
    third.ended()
    first.stop()
    fourth.start(LOCK)
    status = fourth.ended()
    assert fourth.holds(LOCK, FILES)
    assert set(status["from"]) <= {second.name, third.name} and sum(status["from"].values()) >= SIZE


def test_who_is_called_before_it_is_up_is_called_again(fleet):
    first, second, *_ = fleet.hosts
    second.start(LOCK)
    time.sleep(1.5)
    first.start(LOCK)
    began = time.monotonic()
    second.ended()
    assert second.holds(LOCK, FILES)
    assert time.monotonic() - began < 15  # far from libtorrent's own minute


def test_the_host_that_gives_dies_midway_and_the_others_finish(fleet, throttled):
    first, *others = fleet.hosts
    complete, *receivers = others
    complete.put(LOCK, FILES)
    throttled(SLOW)
    for host in (first, *receivers):
        host.start(LOCK)
    wait_for(lambda: all(host.status().get("from", {}).get(first.name) for host in receivers))
    first.kill()
    assert not any(host.holds(LOCK, FILES) for host in receivers)
    throttled(0)
    complete.start(LOCK)
    for host in receivers:
        host.ended()
        assert host.holds(LOCK, FILES)


def test_a_receiver_that_was_killed_goes_on_where_it_was(fleet, throttled):
    first, second, *_ = fleet.hosts
    throttled(SLOW)
    first.start(LOCK)
    second.start(LOCK)
    staged = second.snapshot(LOCK).swarm / COMMIT
    wait_for(lambda: sum(status.st_blocks for status in scan(staged).values()) * 512 > MIB)
    second.kill()
    assert not second.snapshot(LOCK).path.exists()
    there = pieces_in(staged)
    assert MIB <= there < SIZE
    throttled(0)
    first.start(LOCK)
    second.start(LOCK)
    assert second.ended()["from"] == {first.name: SIZE - there}
    assert second.holds(LOCK, FILES)


def pieces_in(folder: Path) -> int:
    """Bytes below `folder` that are whole pieces of the snapshot."""
    right = 0
    for path in scan(folder):
        data, file = FILES[path], (folder / path).read_bytes()
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            right += len(piece) if file[start : start + PIECE] == piece else 0
    return right


def test_one_that_is_ended_midway_says_so_and_ends_at_once(fleet, throttled):
    first, second, *_ = fleet.hosts
    throttled(SLOW)
    first.start(LOCK)
    second.start(LOCK)
    wait_for(lambda: second.status().get("done", 0) > PIECE)
    began = time.monotonic()
    status = second.stop()["status"]
    assert time.monotonic() - began < swarm_peer.TERM_WITHIN
    assert status["state"] == "failed" and "ended before they were whole" in status["problem"]
    assert swarm_peer.running(str(second.store)) is None and not second.snapshot(LOCK).path.exists()


def test_one_file_is_mended_and_the_others_are_the_same(fleet):
    first, second, third, _ = fleet.hosts
    path = second.put(LOCK, FILES)
    kept = (path / "model-1.safetensors").stat().st_ino
    damage(path / "model-2.safetensors")
    (path / "config.json").unlink()
    first.start(LOCK)
    second.start(LOCK)
    status = second.ended()
    assert second.holds(LOCK, FILES)
    assert status["snapshots"][0]["state"] == "repaired"
    mended = len(FILES["model-2.safetensors"]) + len(FILES["config.json"])
    assert mended == status["snapshots"][0]["fetched_bytes"] == sum(status["from"].values())
    assert (path / "model-1.safetensors").stat().st_ino == kept
    # And gives them all.
    first.stop()
    third.start(LOCK)
    assert set(third.ended()["from"]) == {second.name}
    assert third.holds(LOCK, FILES)


def test_who_has_damaged_files_notices_before_giving_them_and_does_not_touch_them(fleet):
    """The stat cache vouches for them: damage between the look and the transfer, or a disk that lost bytes."""
    rotten, good, receiver, _ = fleet.hosts
    good.put(LOCK, FILES)
    rotten.start(LOCK)
    wait_for(lambda: rotten.status().get("state") == "whole")
    place = rotten.snapshot(LOCK).path / "model-1.safetensors"
    for offset in range(0, len(FILES["model-1.safetensors"]), PIECE):
        damage(place, offset)
    before = place.read_bytes()
    assert before != FILES["model-1.safetensors"]
    receiver.start(LOCK)
    status = wait_for(lambda: (status := rotten.status())["state"] == "failed" and status)
    assert status["corrupt_from"] == [rotten.name]
    assert "seen piece" in status["problem"] and "run again" in status["problem"]
    good.start(LOCK)
    assert receiver.ended()["corrupt_from"] == []
    assert receiver.holds(LOCK, FILES)
    time.sleep(1.5)  # in which it could have had the good bytes
    assert place.read_bytes() == before and rotten.status()["from"] == {}


class Liar:
    """A peer that knows the secret and gives what it likes. Not a process: peers are forked before it is made."""

    def __init__(self, host, files, torrents=None, peers=(), seeds=True):
        self.fleet, self.host = host.fleet, host
        snapshot = host.snapshot(LOCK)
        parameters = libtorrent.session_params()
        parameters.settings = {
            **session.SETTINGS,
            "listen_interfaces": f"{host.address}:{self.fleet.port}",
            "outgoing_interfaces": host.address,
            "in_enc_policy": 0,
            "out_enc_policy": 0,
            "allowed_enc_level": 1,
        }
        self.session = libtorrent.session(parameters)
        hashes = torrent.decode(snapshot.manifest, (torrents or self.fleet.torrents)[COMMIT])
        made = libtorrent.load_torrent_buffer(torrent.metainfo(snapshot.manifest, hashes, self.fleet.swarm))
        made.save_path = str(host.store)
        order = torrent.order(snapshot.manifest)
        layout = made.ti.layout()
        made.renamed_files = {
            number: order[int(layout.file_name(number))]
            for number in range(made.ti.num_files())
            if not layout.file_flags(number) & libtorrent.file_flags_t.flag_pad_file
        }
        if seeds:
            for path, data in files.items():
                (host.store / path).parent.mkdir(parents=True, exist_ok=True)
                (host.store / path).write_bytes(data)
            made.have_pieces = [True] * made.ti.num_pieces()
        made.flags = libtorrent.torrent_flags.disable_pex
        self.handle = self.session.add_torrent(made)
        self.peers = peers

    def call(self):
        for peer in self.peers:
            self.handle.connect_peer((peer.address, self.fleet.port))


LIES = {path: bytes(255 - byte for byte in data) for path, data in FILES.items()}


def test_who_gives_corrupted_bytes_is_turned_out_and_named(fleet):
    good, receiver, bad, _ = fleet.hosts
    receiver.start(LOCK, idle=60)
    liar = Liar(bad, LIES, peers=[receiver])
    liar.call()
    status = wait_for(lambda: (status := receiver.status()).get("corrupt_from") and status)
    assert status["corrupt_from"] == [bad.name] and status["state"] == "working"
    good.start(LOCK)
    assert receiver.ended()["corrupt_from"] == [bad.name]
    assert receiver.holds(LOCK, FILES)


def test_corrupted_bytes_alone_are_never_promoted(fleet):
    _, receiver, bad, _ = fleet.hosts
    receiver.start(LOCK, peers={bad.name: bad.address}, idle=60)
    liar = Liar(bad, LIES, peers=[receiver])
    liar.call()
    status = receiver.ended("failed")
    assert f"seen corrupted ones from {bad.name}, and there is no other peer" in status["problem"]
    assert not receiver.snapshot(LOCK).path.exists()


def test_a_description_that_lies_promotes_nothing(fleet):
    """The describing host and the one that gives agree on other bytes: the lock on the receiving host decides."""
    _, receiver, bad, elsewhere = fleet.hosts
    lies = manifest(LIES)
    elsewhere.put(lies, LIES)
    torrents = elsewhere.describe(lies)["torrents"]
    receiver.start(LOCK, torrents=torrents, idle=60)
    liar = Liar(bad, LIES, torrents, peers=[receiver])
    liar.call()
    problem = receiver.ended("failed")["problem"]
    # The second, if the file arrives once more before a look at the disk has blamed the description.
    assert (
        "expected the bytes of the lock, seen others" in problem
        or "gives other bytes than were locked" in problem
    ), problem
    assert not receiver.snapshot(LOCK).path.exists()
    assert set(scan(receiver.snapshot(LOCK).files)) <= {"empty"}


@pytest.mark.parametrize("lacks", ["secret", "name"])
def test_a_stranger_gets_no_byte(fleet, lacks):
    first, second, stranger, _ = fleet.hosts
    peers = {host.name: host.address for host in (first, second, *([stranger] if lacks == "secret" else []))}
    first.start(LOCK, peers=peers)
    secret = fleet.swarm
    if lacks == "secret":
        fleet.swarm = "0" * 32
    other = Liar(stranger, {}, peers=[first], seeds=False)
    fleet.swarm = secret
    for _ in range(15):
        other.call()
        time.sleep(0.1)
    assert other.handle.status().total_payload_download == 0
    assert first.status()["to"] == {}
    # And it was the secret, or the name, that it lacked.
    first.start(LOCK)
    second.start(LOCK)
    second.ended()


def test_nobody_answers(fleet, monkeypatch):
    monkeypatch.setattr(snapshots, "Meter", partial(snapshots.Meter, every=0.1))  # talk is no progress
    host = fleet.hosts[1]
    host.start(LOCK, idle=1)
    problem = host.ended("failed")["problem"]
    assert f"expected a peer to answer within 1 s on port {fleet.port}, seen none" in problem
    assert all(f"{other.name} ({other.address})" in problem for other in fleet.hosts if other is not host)
    assert f"({host.address})" not in problem
    wait_for(lambda: swarm_peer.running(str(host.store)) is None)
    assert not host.snapshot(LOCK).path.exists()


def test_nobody_has_it(fleet):
    """Two that wait for each other stop waiting, and before the time for silence is over."""
    first, second = fleet.hosts[1:3]
    peers = {host.name: host.address for host in (first, second)}
    before, session.NOWHERE = session.NOWHERE, 1.0
    try:
        for host in (first, second):
            host.start(LOCK, peers=peers, idle=60)
    finally:
        session.NOWHERE = before
    for host in (first, second):
        assert "that none of them has" in host.ended("failed")["problem"]


def test_who_gives_falls_silent(fleet, throttled):
    """It is there and answers no more: a host that hangs."""
    first, second, *_ = fleet.hosts
    throttled(SLOW)
    pid = first.start(LOCK)["pid"]
    second.start(LOCK, peers={first.name: first.address}, idle=5)
    wait_for(lambda: second.status().get("done", 0) > MIB // 2)
    os.kill(pid, 19)
    try:
        problem = second.ended("failed")["problem"]
    finally:
        os.kill(pid, 18)
    assert "seen no byte for 5 s" in problem and first.name in problem
    staged = second.snapshot(LOCK).swarm
    assert any(status.st_blocks for status in scan(staged).values())


def test_a_disk_without_room_is_said_before_the_first_byte(fleet):
    first, second, *_ = fleet.hosts
    first.start(LOCK)
    second.start(LOCK, disk_reserve=1 << 40)
    problem = second.ended("failed")["problem"]
    assert "to fetch and a reserve of" in problem and "Nothing was fetched" in problem
    assert first.status()["to"] == {}


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=3m") != 0:
        pytest.skip("mounting needs root")
    yield folder
    libc.umount2(str(folder).encode(), 2)


def test_a_disk_that_fills_up_keeps_what_was_received(fleet, small_disk, monkeypatch):
    first, second, *_ = fleet.hosts
    second.store = small_disk / "store"
    monkeypatch.setattr(ensuring, "check_space", lambda *rest: None)
    first.start(LOCK)
    second.start(LOCK)
    problem = second.ended("failed")["problem"]
    assert "seen No space left on device" in problem and "what was fetched is kept" in problem
    assert not second.snapshot(LOCK).path.exists()
    first.stop()
    second.stop()
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    first.start(LOCK)
    second.start(LOCK)
    status = second.ended()
    assert second.holds(LOCK, FILES)
    assert 0 < sum(status["from"].values()) < SIZE


def test_what_is_staged_takes_no_room_twice_and_is_of_no_use_to_the_hub(fleet):
    snapshot = fleet.hosts[1].snapshot(LOCK)
    snapshot.inspect(full=False)
    everything = snapshot.prepare(resumes=False, staged=True)
    staged = snapshot.swarm / COMMIT / "model-2.safetensors"
    staged.parent.mkdir(parents=True)
    with staged.open("wb") as file:
        file.truncate(2 * MIB)
        file.write(FILES["model-2.safetensors"][:MIB])
        os.fsync(file.fileno())
    assert snapshot.prepare(resumes=False, staged=True) == everything - MIB
    assert staged.exists()
    assert snapshot.prepare(resumes=True) == everything
    assert not snapshot.swarm.exists()


def test_body_and_draft_come_together_and_one_failure_does_not_keep_the_other(fleet, monkeypatch):
    bring = swarm_peer.Peer._bring

    def slowly(self, manifest):
        time.sleep(1.5 * (manifest.repository == "org/draft"))
        bring(self, manifest)

    monkeypatch.setattr(swarm_peer.Peer, "_bring", slowly)
    first, second, *_ = fleet.hosts
    draft_files = {"model.safetensors": content(300 * KIB, "draft")}
    draft = manifest(draft_files, "org/draft", "d" * 40)
    first.put(draft, draft_files)
    fleet.describe(first, draft)
    first.start(LOCK, draft)
    second.start(LOCK, draft, torrents={draft["commit"]: fleet.torrents[draft["commit"]]})
    status = second.ended("failed")
    assert "org/body: expected a description of its pieces (torrents), seen none" in status["problem"]
    assert second.holds(draft, draft_files)
    second.start(LOCK, draft)
    status = second.ended()
    assert [report["state"] for report in status["snapshots"]] == ["fetched", "present"]
    assert second.holds(LOCK, FILES)
    assert status["total"] == SIZE + 300 * KIB


def test_a_snapshot_of_empty_files_needs_nobody(fleet):
    files = {"a": b"", "b/c": b""}
    lock = manifest(files, commit="e" * 40)
    host = fleet.hosts[1]
    host.start(lock, torrents={lock["commit"]: "1:"})
    host.ended()
    assert host.holds(lock, files)


def test_with_nothing_to_give_or_get_it_ends_by_itself(fleet):
    host = fleet.hosts[0]
    host.start(LOCK, idle=1)
    wait_for(lambda: swarm_peer.running(str(host.store)) is None, 10)
    assert host.status()["state"] == "whole"


def test_a_time_limit_ends_it(fleet, throttled):
    first, second, *_ = fleet.hosts
    throttled(SLOW)
    first.start(LOCK)
    second.start(LOCK, timeout=1)
    wait_for(lambda: swarm_peer.running(str(second.store)) is None, 10)
    status = second.status()
    assert status["state"] == "failed" and "expected the snapshots within 1 s" in status["problem"]


def test_full_verification_finds_what_the_stat_cache_does_not(fleet):
    first, second, *_ = fleet.hosts
    path = second.put(LOCK, FILES) / "model-1.safetensors"
    damage(path)
    cache = second.snapshot(LOCK).cache_path
    entries = json.loads(cache.read_text())
    entries["files"]["model-1.safetensors"][:4] = signature(path.stat())
    cache.write_text(json.dumps(entries))
    first.start(LOCK)
    second.start(LOCK)
    assert second.ended()["from"] == {} and not second.holds(LOCK, FILES)
    second.start(LOCK, verify="full")
    second.ended()
    assert second.holds(LOCK, FILES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"address": "192.0.2.1"}, "192.0.2.1 port .*: expected to listen there"),
        ({"address": "spark-1"}, "address: expected an IP address, seen 'spark-1'"),
        ({"peers": {"spark-9": "somewhere"}}, "spark-9: expected an IP address"),
        ({"swarm": "secret"}, "swarm: expected at least 32 hex digits"),
        ({"torrents": {COMMIT: "1:AAAA"}}, "torrents: expected .* piece hashes of org/body"),
        ({"idle": 0, "store": "relative"}, "(?s)idle: expected 1 or more.*"),
        ({"snapshots": []}, "snapshots: expected one or more"),
        ({"name": None}, "state is started but all of the following are missing: name"),
    ],
)
def test_what_it_cannot_be_started_with(fleet, wrong, message):
    host = fleet.hosts[0]
    answer = host.start(LOCK, **wrong)
    assert answer["failed"] and re.search(message, answer["msg"])
    assert "secret" not in answer["msg"]
    assert swarm_peer.running(str(host.store)) is None


def test_a_port_that_is_taken(fleet):
    host = fleet.hosts[0]
    with socket.socket() as other:
        other.bind((host.address, fleet.port))
        other.listen()
        answer = host.start(LOCK)
    assert answer["failed"] and "Address already in use" in answer["msg"]


def test_check_mode_starts_and_ends_nothing(fleet):
    host = fleet.hosts[0]
    assert host.start(LOCK, _ansible_check_mode=True)["changed"]
    assert swarm_peer.running(str(host.store)) is None
    pid = host.start(LOCK)["pid"]
    host.start(LOCK, _ansible_check_mode=True)
    assert swarm_peer.running(str(host.store)) == pid


def test_a_pid_that_the_kernel_gave_again_is_not_ended(fleet):
    host = fleet.hosts[0]
    host.start(LOCK)
    host.kill()
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        (swarm_peer.home(str(host.store)) / "lock").write_text(str(bystander.pid))
        assert host.stop()["changed"] is False
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_line_for_a_person():
    assert swarm_peer.line("working", 12 * 10**9, 27 * 10**9, 310e6, {"b": 1, "a": 3}, "") == (
        "12.00 GB of 27.00 GB, 310.0 MB/s, 48 s left; from a 75 %, b 25 %"
    )
    assert swarm_peer.line("working", 0, 10, 0.0, {}, "waiting for process 7") == "waiting for process 7"
    assert swarm_peer.line("whole", 10**6, 10**6, 5.0, {}, "x") == "1.0 MB of 1.0 MB"


def test_without_libtorrent_it_says_what_is_missing(fleet, monkeypatch):
    monkeypatch.setattr(session, "lt", None)
    answer = fleet.hosts[0].start(LOCK)
    assert answer["failed"] and "libtorrent" in answer["msg"]
