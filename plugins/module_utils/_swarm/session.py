# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots from and to the other hosts of a fleet, by BitTorrent v2 (libtorrent 2.1).

Who may take part: a host with an address of the inventory (any other connection is refused) that knows the salt of this run. The
handshake is keyed with the info-hash, and the info-hash covers the salt. The worst a peer can do is waste time: every block is
checked against the hash tree before it counts, and every file's flat sha256 against the lock before it is promoted.

Promoted files are never written. Snapshots that were whole are seeded in upload mode, where libtorrent requests nothing; without
that mode, libtorrent would repair a damaged file in place. Snapshots that have just come are complete, and are paused at the
first error.
"""

from __future__ import annotations

import ipaddress
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._common.progress import volume
from .._common.work import Stopped
from .._models.manifest import Manifest
from .._models.pieces import pieces_of
from .._models.snapshot import SnapshotError, StagedFetcher
from . import torrent

lt: Any
try:
    import libtorrent

    lt = libtorrent
except ImportError:  # the caller that makes a Swarm says so; the rest of the collection works without
    lt = None

PORT = 6881
TICK = 0.2
"""Seconds between two looks at the session."""
LISTEN_WITHIN = 10.0
REDIAL = 1.0
FLUSH = 2.0
NOWHERE = 20.0
"""Seconds without payload after which a piece that no connected peer has is given up."""
RATE_WINDOW = 5.0
FIRST, LATER = 7, 4
"""Priorities of pieces."""

SETTINGS: dict[str, Any] = {
    # Only the named peers, over TCP: nothing is announced or discovered, and no router is asked for a port.
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "listen_system_port_fallback": False,
    "max_retry_port_bind": 0,
    "user_agent": "sparkfleet",
    "peer_dscp": 0,
    # A fleet has a few to a few hundred peers with the same aim: nobody is choked, nobody is turned out.
    "connections_limit": 4096,
    "unchoke_slots_limit": -1,
    "peer_turnover": 0,
    "close_redundant_connections": False,
    "connection_speed": 500,
    "torrent_connect_boost": 255,
    "smooth_connects": False,
    "min_reconnect_time": 1,
    "max_failcount": 31,
    "listen_queue_size": 128,
    # The silence of a dead host gives it away; its requests go to others.
    "peer_timeout": 30,
    "request_timeout": 10,
    "piece_timeout": 10,
    "handshake_timeout": 10,
    "peer_connect_timeout": 5,
    # Request no more than a peer gives in a second: nobody else is asked for what waits in one peer's queue.
    "request_queue_time": 1,
    "max_out_request_queue": 1500,
    "max_allowed_in_request_queue": 4000,
    "send_buffer_watermark": 4 * 1024 * 1024,
    "send_buffer_low_watermark": 512 * 1024,
    "max_queued_disk_bytes": 256 * 1024 * 1024,
    "file_pool_size": 256,
    "no_atime_storage": True,
    "alert_queue_size": 20000,
}


class SwarmError(SnapshotError):
    """The swarm does not give what is missing; the text says what was expected, seen, and what to do."""


def available() -> bool:
    return lt is not None


@dataclass
class _Torrent:
    """One snapshot in the session."""

    manifest: Manifest
    handle: Any
    index: dict[str, int]
    """{path: number of the file in the torrent}; empty files are in no torrent."""
    folder: Path
    wanted: frozenset[str]
    """The files to bring."""
    sending: bool
    """Whether the snapshot is promoted: it is read, and never written."""
    checking: bool = True
    rechecked: bool = False
    progress: list[int] = field(default_factory=list)
    """Bytes by file number, of whole pieces with the right hash."""
    flushed: set[str] = field(default_factory=set)
    flushed_at: float = 0.0
    flushing: set[str] | None = None
    """Files that are being flushed; None when no flush is under way."""
    error: OSError | None = None
    checked_share: float = 0.0
    connections: dict[tuple[Any, ...], tuple[str, int, int]] = field(default_factory=dict)
    """{(their end, our end): (name of the peer, bytes received, bytes sent)} at the last look."""
    counted: list[int] = field(default_factory=lambda: [0, 0])
    """Bytes received and sent that are counted for the peers already."""

    def complete(self, path: str) -> bool:
        number = self.index[path]
        return number < len(self.progress) and self.progress[number] == self.manifest.files[path].size


class Swarm(StagedFetcher):
    """This host's part in the swarm: it seeds what is whole, and brings what is not.

    :param address: own address, to listen on and to send from
    :param peers: {name: address} of the other hosts
    :param salt: secret of the run
    :param descriptions: {commit: what snapshot_torrent returned}
    :param idle: seconds without any progress after which a fetch gives up
    """

    def __init__(
        self,
        name: str,
        address: str,
        port: int,
        peers: Mapping[str, str],
        salt: str,
        descriptions: Mapping[str, str],
        idle: float,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.address, self.port, self.idle = name, address, port, idle
        self.peers = {other: where for other, where in peers.items() if other != name and where != address}
        self.received: dict[str, int] = {}
        self.sent: dict[str, int] = {}
        self.corrupt_from: list[str] = []
        self.damaged: dict[str, str] = {}
        """{commit: what is wrong with the snapshot that is promoted here}"""
        self._salt, self.descriptions = salt, descriptions
        self._names = {ipaddress.ip_address(where): other for other, where in self.peers.items()}
        self._settings = {**SETTINGS, **(settings or {})}
        self._torrents: dict[str, _Torrent] = {}
        self._connected: set[str] = set()
        self._seen: set[str] = set()
        self._marks: list[tuple[float, int]] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._active = time.monotonic()
        self._dialled = 0.0
        self._broken = ""
        self._session: Any = None
        self._pump: threading.Thread | None = None

    # the session

    def start(self) -> None:
        """Listen, and start the thread that looks after the session.

        :raises SwarmError: the address and port are not free to listen on
        """
        shown = ipaddress.ip_address(self.address)
        host = f"[{shown}]" if shown.version == 6 else str(shown)
        parameters = lt.session_params()
        parameters.settings = {
            **self._settings,
            "listen_interfaces": f"{host}:{self.port}",
            "outgoing_interfaces": self.address,
            # Encryption is keyed with the info-hash, which needs the salt. The payload is plain: its hashes vouch for it.
            "in_enc_policy": int(lt.enc_policy.forced),
            "out_enc_policy": int(lt.enc_policy.forced),
            "allowed_enc_level": int(lt.enc_level.plaintext),
            "aio_threads": max(4, min(16, os.cpu_count() or 4)),
            "hashing_threads": max(1, min(8, (os.cpu_count() or 2) // 2)),
            "alert_mask": lt.alert_category.error
            | lt.alert_category.status
            | lt.alert_category.peer
            | lt.alert_category.storage,
        }
        self._session = lt.session(parameters)
        self._session.set_ip_filter(self._filter())
        deadline = time.monotonic() + LISTEN_WITHIN
        while time.monotonic() < deadline:
            self._session.wait_for_alert(int(TICK * 1000))
            for alert in self._session.pop_alerts():
                if isinstance(alert, lt.listen_failed_alert):
                    raise SwarmError(
                        f"{self.address} port {self.port}: expected to listen there for the other hosts, seen "
                        f"{alert.error.message()}; name an address of this host, or a port that is free"
                    )
                if isinstance(alert, lt.listen_succeeded_alert):
                    self._pump = threading.Thread(target=self._run, daemon=True)
                    self._pump.start()
                    return
        raise SwarmError(
            f"{self.address} port {self.port}: expected to listen there within {LISTEN_WITHIN:.0f} s, seen nothing; "
            "see whether the host is overloaded"
        )

    def _filter(self) -> Any:
        """A filter that admits only the peers."""
        rules = lt.ip_filter()
        refused, allowed = 1, 0
        rules.add_rule("0.0.0.0", "255.255.255.255", refused)  # noqa: S104 - the first address there is, to listen on none
        rules.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", refused)
        for address in self._names:
            rules.add_rule(str(address), str(address), allowed)
        return rules

    def stop(self) -> None:
        """End every fetch, and flush what was received to the disk for the next run."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._pump:
            self._pump.join(2 * LISTEN_WITHIN)
        if self._session is None:
            return
        self._session.pause()
        under_way = {
            str(each.handle.info_hashes().v2) for each in self._torrents.values() if not each.sending
        }
        for each in self._torrents.values():
            if not each.sending:
                each.handle.flush_cache()
        deadline = time.monotonic() + 2.0
        while under_way and time.monotonic() < deadline:
            self._session.wait_for_alert(100)
            for alert in self._session.pop_alerts():
                if isinstance(alert, lt.cache_flushed_alert):
                    under_way.discard(str(alert.handle.info_hashes().v2))

    # what is brought and what is given

    def described(self, manifest: Manifest) -> bool:
        return manifest.commit in self.descriptions

    def seed(self, manifest: Manifest, folder: Path) -> None:
        """Give what is whole in `folder`/<commit>. Every piece is hashed before it is first given."""
        with self._changed:
            if manifest.commit not in self._torrents and self.described(manifest):
                self._add(manifest, folder, [], sending=True)

    def begin(self, manifest: Manifest, paths: Sequence[str], folder: Path) -> None:
        if not self.described(manifest):
            raise SwarmError(
                f"{manifest.repository}: expected a description of its pieces (torrents), seen none; "
                "get one with snapshot_torrent from a host that has it"
            )
        with self._changed:
            self._active = time.monotonic()
            self._add(manifest, folder, paths, sending=False)

    def placed(self, manifest: Manifest, folder: Path) -> None:
        with self._changed:
            each = self._torrents.get(manifest.commit)
            if each is None:
                return
            if each.handle.status().is_seeding:
                # The same files under another name: nothing is read or moved, and connections stay. The torrent has everything and
                # requests nothing. Upload mode, set now, would cancel requests that libtorrent has forgotten, and crash it.
                each.handle.move_storage(str(folder), lt.move_flags_t.reset_save_path_unchecked)
                each.folder, each.sending = folder, True
            else:
                # Only some files came, and the others were right already. Now it can give all of them.
                self._session.remove_torrent(each.handle)
                self._add(manifest, folder, [], sending=True)

    def _add(self, manifest: Manifest, folder: Path, paths: Sequence[str], sending: bool) -> None:
        hashes = torrent.decode(manifest, self.descriptions[manifest.commit])
        if not manifest.size:
            return
        order = torrent.order(manifest)
        parameters = lt.load_torrent_buffer(torrent.metainfo(manifest, hashes, self._salt))
        layout = parameters.ti.layout()
        index = {
            order[int(layout.file_name(number))]: number
            for number in range(layout.num_files())
            if not layout.file_flags(number) & lt.file_flags_t.flag_pad_file
        }
        parameters.save_path = str(folder)
        parameters.renamed_files = {number: f"{manifest.commit}/{path}" for path, number in index.items()}
        parameters.storage_mode = lt.storage_mode_t.storage_mode_sparse
        # Without apply_ip_filter, the session's filter of addresses does not apply to the torrent.
        flags = (
            lt.torrent_flags.apply_ip_filter
            | lt.torrent_flags.disable_dht
            | lt.torrent_flags.disable_lsd
            | lt.torrent_flags.disable_pex
        )
        if sending:
            flags |= lt.torrent_flags.seed_mode | lt.torrent_flags.upload_mode
        else:
            ranges = [_range(layout, index[path]) for path in paths if path in index]
            parameters.piece_priorities = self._priorities(parameters.ti.num_pieces(), ranges)
        parameters.flags = flags
        handle = self._session.add_torrent(parameters)
        self._torrents[manifest.commit] = _Torrent(manifest, handle, index, folder, frozenset(paths), sending)
        self._dialled = 0.0

    def _priorities(self, pieces: int, wanted: Sequence[range]) -> list[int]:
        """What to ask for first. By itself every host would ask the one that has all for the same pieces. With a slice of its
        own, each brings something that it can give to the others. A hint only: nothing else depends on it.
        """
        names = sorted({self.name, *self.peers})
        number = names.index(self.name)
        own = range(pieces * number // len(names), pieces * (number + 1) // len(names))
        priorities = [0] * pieces
        for piece in (piece for each in wanted for piece in each):
            priorities[piece] = FIRST if piece in own else LATER
        return priorities

    def fetch(self, manifest: Manifest, path: str, target: Path, received: Callable[[int], None]) -> None:
        size = manifest.files[path].size
        if not size:
            target.touch()
            return
        each = self._torrents[manifest.commit]
        self._check_again(each, path)
        done = 0
        while True:
            with self._changed:
                whole = path in each.flushed
                now = size if whole else min(size, self._progress(each, path))
                if not whole:
                    self._changed.wait(TICK)
            if self._stop.is_set():
                raise Stopped
            received(now - done)
            done = now
            if whole:
                break
            if each.error:
                raise each.error
            if self._broken:
                raise SwarmError(f"{manifest.repository}: {self._broken}")
            if problem := self._problem(each):
                raise SwarmError(problem)
        os.link(each.folder / manifest.commit / path, target)

    def _check_again(self, each: _Torrent, path: str) -> None:
        """A file that is asked for a second time did not match the lock. Find out whether the disk or the description is wrong."""
        with self._changed:
            if path not in each.flushed:
                return
            if not each.rechecked:
                each.rechecked = each.checking = True
                each.progress, each.flushed = [], set()
                each.handle.force_recheck()
            while each.checking and not self._stop.is_set():
                self._changed.wait(TICK)
            if path in each.flushed or each.complete(path):
                raise SwarmError(
                    f"{each.manifest.repository}/{path}: expected the bytes of the lock, seen others that are what the "
                    "description (torrents) says; the host that described it has other bytes. Nothing was promoted. "
                    "Describe it on another host"
                )

    def _progress(self, each: _Torrent, path: str) -> int:
        number = each.index[path]
        return each.progress[number] if number < len(each.progress) else 0

    def _problem(self, each: _Torrent) -> str:
        """Why this snapshot will not come; empty while it still may."""
        quiet = time.monotonic() - self._active
        repository = each.manifest.repository
        with self._changed:
            tried = (
                ", ".join(f"{name} ({where})" for name, where in sorted(self.peers.items()))
                or "no peer named"
            )
            left = sum(
                each.manifest.files[path].size - self._progress(each, path)
                for path in each.index
                if path in each.wanted and path not in each.flushed
            )
            connected = ", ".join(sorted(self._connected))
            corrupt = [name for name in self.corrupt_from if name in self.peers]
            nowhere = not each.checking and each.handle.status().distributed_full_copies == 0
        kept = "Nothing was promoted, and what was received is kept"
        if corrupt and set(corrupt) == set(self.peers):
            return (
                f"{repository}: expected the bytes of the lock, seen corrupted ones from {', '.join(corrupt)}, and there "
                f"is no other peer; run hf_snapshot with verify=full there. {kept}"
            )
        if quiet > min(NOWHERE, self.idle) and nowhere and self._connected >= set(self.peers) - set(corrupt):
            return (
                f"{repository}: expected all pieces among {tried}, seen {volume(left)} that none of them has; "
                f"fetch it on one host first. {kept}"
            )
        if quiet <= self.idle:
            return ""
        if not self._seen:
            return (
                f"{repository}: expected a peer to answer within {self.idle:.0f} s on port {self.port}, seen none; tried "
                f"{tried}. Check that they run and that TCP port {self.port} is open between the hosts. {kept}"
            )
        return (
            f"{repository}: expected the last {volume(left)} from the other hosts, seen no byte for {self.idle:.0f} s; "
            f"tried {tried}, connected to {connected or 'none of them'}. See whether they are up, and run again. {kept}"
        )

    # the pump

    def _run(self) -> None:
        while not self._stop.is_set():
            self._session.wait_for_alert(int(TICK * 1000))
            with self._changed:
                try:
                    self._look()
                except Exception as error:
                    # Nobody would notice that the thread ended, and everybody would wait for it.
                    self._broken = f"{type(error).__name__}: {error}"
                self._changed.notify_all()
            self._stop.wait(TICK / 4)

    def _look(self) -> None:
        for alert in self._session.pop_alerts():
            self._on(alert)
        for each in self._torrents.values():
            self._follow(each)
        self._count()
        self._dial()

    def _of(self, alert: Any) -> _Torrent | None:
        return next((each for each in self._torrents.values() if each.handle == alert.handle), None)

    def _on(self, alert: Any) -> None:
        if isinstance(alert, lt.peer_ban_alert):
            self._accuse(self._name(alert.ip[0]))
        elif isinstance(alert, lt.torrent_alert):
            each = self._of(alert)
            if each is None:
                return
            if isinstance(alert, lt.torrent_checked_alert):
                each.checking = False
            elif isinstance(alert, lt.cache_flushed_alert):
                each.flushed |= each.flushing or set()
                each.flushing = None
            elif isinstance(alert, lt.hash_failed_alert) and each.sending:
                self._accuse(self.name)
                self.damaged[each.manifest.commit] = (
                    f"{each.folder / each.manifest.commit}: expected the bytes that were verified, seen piece "
                    f"{alert.piece_index} with another hash: the disk changed them; run again: this host then hashes "
                    "its files and mends them"
                )
            elif isinstance(alert, lt.file_error_alert | lt.torrent_error_alert):
                # libtorrent counts bytes as there that it could not write. None of them may be given.
                each.handle.pause()
                each.error = OSError(alert.error.value(), alert.error.message(), str(each.folder))
                if each.sending:
                    self._accuse(self.name)
                    self.damaged[each.manifest.commit] = (
                        f"{each.folder / each.manifest.commit}: expected to read it, seen {alert.error.message()}; check "
                        "the disk, and run again: this host then hashes its files and mends them"
                    )

    def _accuse(self, name: str) -> None:
        if name not in self.corrupt_from:
            self.corrupt_from.append(name)

    def _name(self, address: str) -> str:
        return self._names.get(ipaddress.ip_address(address), address)

    def _follow(self, each: _Torrent) -> None:
        """Flush complete files to the disk: libtorrent counts a piece before it is written."""
        if each.sending or each.error:
            return
        if each.checking:
            share = each.handle.status().progress
            if share != each.checked_share:
                each.checked_share, self._active = share, time.monotonic()
            return
        each.progress = each.handle.file_progress(1)  # whole pieces only
        ready = {path for path in each.index if path not in each.flushed and each.complete(path)}
        now = time.monotonic()
        # A process that ends loses what is only in libtorrent's memory, whole pieces included.
        if each.flushing is None and (ready or now - each.flushed_at > FLUSH):
            each.flushing, each.flushed_at = ready, now
            each.handle.flush_cache()

    def _count(self) -> None:
        """Count the bytes from and to each peer: what each connection has carried since the last look."""
        connected: set[str] = set()
        moved = 0
        for each in self._torrents.values():
            status = each.handle.status()
            left = [status.total_payload_download, status.total_payload_upload]
            for number, count in enumerate(each.counted):
                left[number] -= count
            current: dict[tuple[Any, ...], tuple[str, int, int]] = {}
            shares: list[tuple[str, int, int]] = []
            for peer in each.handle.get_peer_info():
                if peer.flags & (peer.connecting | peer.handshake):
                    continue
                name = self._name(peer.ip[0])
                connected.add(name)
                key = (peer.ip, peer.local_endpoint())
                _name, down, up = each.connections.get(key, (name, 0, 0))
                current[key] = name, peer.total_download, peer.total_upload
                shares.append((name, peer.total_download - down, peer.total_upload - up))
            for _name, down, up in shares:
                left = [left[0] - down, left[1] - up]
            # For a connection that ended, only the torrent's total has what it carried after the last look.
            ended = [last[0] for key, last in each.connections.items() if key not in current]
            if ended:
                shares += [(name, left[0] // len(ended), left[1] // len(ended)) for name in ended]
            for name, *counts in shares:
                for number, counter in enumerate((self.received, self.sent)):
                    if counts[number] > 0:
                        counter[name] = counter.get(name, 0) + counts[number]
                        each.counted[number] += counts[number]
                        moved += counts[number]
            each.connections = current
        self._connected = connected
        self._seen |= connected
        now = time.monotonic()
        if moved:
            self._active = now
        self._marks.append((now, sum(self.received.values())))
        while len(self._marks) > 2 and now - self._marks[1][0] > RATE_WINDOW:
            self._marks.pop(0)

    def _dial(self) -> None:
        """Call the peers that are not connected yet: libtorrent itself would wait a minute.

        Of two hosts, the one with the later name calls, so that they do not call each other.
        """
        now = time.monotonic()
        if now - self._dialled < REDIAL:
            return
        self._dialled = now
        for each in self._torrents.values():
            here = {name for name, _down, _up in each.connections.values()}
            for name, address in self.peers.items():
                if name < self.name and name not in here and name not in self.corrupt_from:
                    each.handle.connect_peer((address, self.port))

    # for the status

    def touch(self) -> None:
        """Note progress other than payload: everything is verified and in place."""
        self._active = time.monotonic()

    @property
    def quiet(self) -> float:
        """Seconds since the last progress."""
        return time.monotonic() - self._active

    @property
    def rate(self) -> float:
        """Bytes received a second, over the last seconds."""
        with self._changed:
            if len(self._marks) < 2:
                return 0.0
            (since, before), (now, after) = self._marks[0], self._marks[-1]
        return (after - before) / (now - since) if now > since else 0.0

    def done(self, manifest: Manifest) -> int:
        """Bytes of a snapshot that are here in pieces with the right hash."""
        with self._changed:
            each = self._torrents.get(manifest.commit)
            if each is None:
                return 0
            if each.sending:
                return manifest.size
            return sum(min(self._progress(each, path), manifest.files[path].size) for path in each.index)

    def traffic(self) -> tuple[dict[str, int], dict[str, int], list[str]]:
        """Copies of three records: bytes received by peer, bytes sent by peer, and peers that gave corrupted bytes."""
        with self._changed:
            return dict(self.received), dict(self.sent), list(self.corrupt_from)


def _range(layout: Any, number: int) -> range:
    """The pieces of a file. In a v2 torrent a piece never belongs to two files."""
    first = layout.file_offset(number) // layout.piece_length()
    return range(first, first + pieces_of(layout.file_size(number), layout.piece_length()))
