from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.store import StoreError, locked
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import manifest as model_manifest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import snapshot as snapshots
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.compare import scan
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.ensure import (
    Options,
    check,
    ensure,
    look,
    preview,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.hub import (
    HttpFetcher,
    Hub,
    HubError,
    LibraryFetcher,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.snapshot import SnapshotError
from helpers.hub import COMMIT, lab_hub

WEIGHTS = bytes(range(256)) * 12_000
MORE = bytes(reversed(range(256))) * 8_000
FILES = {
    "config.json": b'{"vocab_size": 8}\n',
    "sub/tokenizer.json": b"{}",
    "model-1.safetensors": WEIGHTS,
    "model-2.safetensors": MORE,
    "empty.txt": b"",
}


@pytest.fixture
def lab(tmp_path):
    with lab_hub(tmp_path / "hub") as hub:
        yield hub


class Bench:
    """One store, one Hub, one repository."""

    def __init__(self, lab, tmp_path: Path) -> None:
        self.lab = lab
        self.store = tmp_path / "store"
        self.lines: list[str] = []
        self.manifest = self.publish("org/body", FILES)
        self.path = self.store / "models/org--body" / COMMIT
        self.partial = self.path.parent / f".partial-{COMMIT}"
        self.retries = 0
        self.fetcher = HttpFetcher

    def publish(self, repository, files, **about):
        return model_manifest.parse(**self.lab.add(repository, files, **about))

    def options(self, **more) -> Options:
        return Options(str(self.store), workers=4, say=self.lines.append, **more)

    def source(self):
        hub = Hub(self.lab.url, retries=self.retries, sleep=lambda _: None)
        hub.load()
        return self.fetcher(hub)

    def ensure(self, *manifests, **more):
        return ensure(manifests or [self.manifest], self.options(**more), self.source)

    def content(self, path=None):
        folder = path or self.path
        return {name: (folder / name).read_bytes() for name in scan(folder)}

    def clean(self):
        """Nothing but the snapshot, its stat cache, its piece hashes and the lock."""
        return sorted(entry.name for entry in self.path.parent.iterdir()) == sorted(
            [COMMIT, f".verified-{COMMIT}.json", f".pieces-{COMMIT}.json", ".lock"]
        )


@pytest.fixture
def bench(lab, tmp_path):
    return Bench(lab, tmp_path)


def test_a_snapshot_is_fetched_verified_and_promoted(bench):
    old = os.umask(0o077)
    try:
        (report,) = bench.ensure()
    finally:
        os.umask(old)
    assert bench.content() == FILES
    assert bench.clean()
    total = sum(len(data) for data in FILES.values())
    assert (report.state, report.changed, report.fetched_bytes, report.verified_bytes) == (
        "fetched",
        True,
        total,
        total,
    )
    assert {stat.S_IMODE(status.st_mode) for status in scan(bench.path).values()} == {0o644}
    assert {stat.S_IMODE(Path(folder).stat().st_mode) for folder, _, _ in os.walk(bench.path)} == {0o755}
    assert {(line["method"], line["status"]) for line in bench.lab.requests()} == {("GET", 200)}
    assert len(bench.lab.requests()) == sum(1 for data in FILES.values() if data)


def test_a_second_run_asks_nobody_and_reads_no_file(bench, monkeypatch):
    bench.ensure()
    bench.lab.forget_requests()
    monkeypatch.setattr(snapshots, "sha256_of", lambda *_: pytest.fail("hashed again"))
    monkeypatch.setattr(bench, "source", lambda: pytest.fail("asked for a Hub"))
    (report,) = bench.ensure()
    assert (report.state, report.changed, report.fetched, report.verified_bytes) == ("present", False, [], 0)
    assert bench.lab.requests() == []
    assert [report.state for report in look([bench.manifest], bench.options())] == ["present"]


def test_a_second_run_after_a_repair_reads_no_file(bench, monkeypatch):
    """A repair links the good files, which changes their ctime: the stat cache must be of after that."""
    bench.ensure()
    (bench.path / "config.json").unlink()
    bench.ensure()
    monkeypatch.setattr(snapshots, "sha256_of", lambda *_: pytest.fail("hashed again"))
    assert bench.ensure()[0].state == "present"


def test_verify_full_reads_every_file(bench):
    bench.ensure()
    assert bench.ensure(full=True)[0].verified_bytes == bench.manifest.size
    (report,) = look([bench.manifest], bench.options(full=True))
    assert (report.changed, report.look()["unknown_bytes"]) == (True, bench.manifest.size)


def test_a_touched_file_is_hashed_again_once(bench):
    bench.ensure()
    os.utime(bench.path / "model-1.safetensors")
    (seen,) = look([bench.manifest], bench.options())
    assert (seen.changed, seen.look()["missing_bytes"], seen.look()["unknown_bytes"]) == (
        True,
        0,
        len(WEIGHTS),
    )
    (report,) = bench.ensure()
    assert (report.state, report.changed, report.verified_bytes) == ("present", False, len(WEIGHTS))
    assert bench.ensure()[0].verified_bytes == 0


def spoil(path: Path, keep_times: bool = True) -> None:
    """One byte of the same size, as a bad disk or a careless tool leaves it."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    if keep_times:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_corrupted_file_with_size_and_mtime_kept_is_found_and_swapped(bench):
    bench.ensure()
    inodes = {name: status.st_ino for name, status in scan(bench.path).items()}
    serving = os.open(bench.path, os.O_RDONLY)
    spoil(bench.path / "model-1.safetensors")
    bench.lab.forget_requests()
    (report,) = bench.ensure()
    assert bench.content() == FILES
    assert (report.state, report.fetched) == ("repaired", ["model-1.safetensors"])
    assert "expected sha256" in report.damaged["model-1.safetensors"]
    assert [line["path"].rpartition("/")[2] for line in bench.lab.requests()] == ["model-1.safetensors"]
    after = {name: status.st_ino for name, status in scan(bench.path).items()}
    assert {name for name in after if after[name] != inodes[name]} == {"model-1.safetensors"}
    assert os.fstat(serving).st_ino != bench.path.stat().st_ino, "the directory that serves was edited"
    os.close(serving)
    assert bench.clean()


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda path: path.write_bytes(b"short"), "expected 18 bytes, seen 5"),
        (lambda path: path.unlink(), None),
        # As long as the file, so that only its kind tells.
        (lambda path: (path.unlink(), path.symlink_to("x" * 18)), "expected a regular file, seen lrwxrwxrwx"),
        (lambda path: (path.unlink(), path.mkdir()), None),
    ],
    ids=["truncated", "gone", "link", "folder"],
)
def test_a_damaged_snapshot_is_repaired(bench, harm, why):
    bench.ensure()
    harm(bench.path / "config.json")
    (report,) = bench.ensure()
    assert (report.state, report.damaged) == ("repaired", {"config.json": why} if why else {})
    assert bench.content() == FILES
    assert not (bench.path / "config.json").is_symlink()


def test_a_repair_that_fails_leaves_what_serves_as_it_was(bench):
    bench.ensure()
    spoil(bench.path / "config.json")
    before = bench.content()
    bench.lab.faults({"match": ".", "kind": "status", "status": 503})
    with pytest.raises(HubError, match="HTTP 503"):
        bench.ensure()
    assert bench.content() == before
    bench.lab.faults()
    assert bench.ensure()[0].state == "repaired"
    assert bench.content() == FILES


def test_modes_that_the_container_cannot_read_are_mended(bench):
    bench.ensure()
    (bench.path / "config.json").chmod(0o600)
    (report,) = bench.ensure()
    assert report.changed and report.state == "present"
    assert stat.S_IMODE((bench.path / "config.json").stat().st_mode) == 0o644
    assert not bench.ensure()[0].changed


def test_unexpected_files_are_named_and_left(bench):
    bench.ensure()
    (bench.path / "sub/other.safetensors").write_bytes(b"x")
    (report,) = bench.ensure()
    assert (report.unexpected, report.changed) == (["sub/other.safetensors"], False)
    assert (bench.path / "sub/other.safetensors").exists()


def test_a_stat_cache_that_is_garbage_only_costs_hashing(bench):
    bench.ensure()
    cache = bench.path.parent / f".verified-{COMMIT}.json"
    for text in ("", "[]", '{"version": 1, "files": []}', '{"version": 1, "files": {"config.json": 7}}'):
        cache.write_text(text)
        (report,) = bench.ensure()
        assert (report.changed, report.verified_bytes) == (False, bench.manifest.size)


def test_a_stat_cache_of_another_lock_does_not_vouch(bench):
    """Same path and size, another sha256 in the lock: what is there is wrong."""
    bench.ensure()
    changed = {**FILES, "config.json": b'{"vocab_size": 9}\n'}
    (report,) = bench.ensure(bench.publish("org/body", changed))
    assert report.fetched == ["config.json"]
    assert bench.content() == changed


# -- what can go wrong on the way


def test_same_size_corruption_on_the_way_is_fetched_again(bench):
    bench.lab.faults({"match": "model-1", "kind": "corrupt", "times": 1})
    bench.ensure()
    assert bench.content() == FILES
    assert any("fetching it again" in line for line in bench.lines)


@pytest.mark.parametrize("fetcher", [HttpFetcher, LibraryFetcher])
def test_same_size_corruption_that_stays_is_never_promoted(bench, fetcher):
    bench.fetcher = fetcher
    bench.lab.faults({"match": "GET .*model-1", "kind": "corrupt"})
    with pytest.raises(
        SnapshotError, match=r"org/body/model-1.safetensors: expected sha256 \w{64}, seen \w{64}"
    ):
        bench.ensure()
    assert not bench.path.exists()
    assert (
        sum(
            line["path"].endswith("model-1.safetensors") and line["method"] == "GET"
            for line in bench.lab.requests()
        )
        == 2
    )


def test_a_file_that_changed_upstream_in_size_is_never_promoted(bench):
    bench.lab.add("org/body", {**FILES, "config.json": b"{}"})
    with pytest.raises(HubError, match=r"expected 18 bytes of org/body/config.json.*seen 2"):
        bench.ensure()
    assert not bench.path.exists()


def test_a_body_cut_short_goes_on(bench):
    bench.retries = 2
    bench.lab.faults({"match": "model-1", "kind": "truncate", "after": 500_000, "times": 1})
    bench.ensure()
    assert bench.content() == FILES
    assert [line["range"] for line in bench.lab.requests() if line["range"]] == ["bytes=500000-"]


def test_hub_down_with_half_a_snapshot_there_is_a_failure_and_then_goes_on(bench):
    bench.lab.faults({"match": "model-1", "kind": "truncate", "after": 500_000})
    with pytest.raises(HubError, match="no whole answer"):
        bench.ensure()
    assert not bench.path.exists()

    url, bench.lab.url = bench.lab.url, "http://127.0.0.1:9"
    with pytest.raises(HubError, match="check the endpoint, the network"):
        bench.ensure()
    assert not bench.path.exists()

    there = set(scan(bench.partial / "files"))
    assert "model-1.safetensors" not in there

    bench.lab.url = url
    bench.lab.faults()
    bench.lab.forget_requests()
    (report,) = bench.ensure()
    assert bench.content() == FILES
    assert bench.clean()
    assert set(report.fetched) == set(FILES) - there
    asked = {line["path"].rpartition("/")[2]: line["range"] for line in bench.lab.requests()}
    assert asked["model-1.safetensors"] == "bytes=500000-"
    assert not set(asked) & there


def test_what_an_interruption_left_is_not_trusted(bench):
    """Verified-looking files with other bytes, bytes for another file, leftovers of the library."""
    (bench.partial / "files/sub").mkdir(parents=True)
    (bench.partial / "files/model-1.safetensors").write_bytes(b"x" * len(WEIGHTS))
    (bench.partial / "files/model-2.safetensors").write_bytes(MORE)
    (bench.partial / "files/sub/stranger").write_bytes(b"x")
    (bench.partial / "incoming/abc.d").mkdir(parents=True)
    (bench.partial / "incoming/abc.d/x.incomplete").write_bytes(b"x")
    (bench.partial / "incoming/def").write_bytes(b"x")
    snapshot = snapshots.Snapshot(str(bench.store), bench.manifest, 1, print)
    wrong = snapshot._incoming("config.json")
    wrong.write_bytes(b"x" * 10)
    snapshot.inspect(full=False)
    snapshot.prepare(resumes=True)
    assert list(snapshot.incoming.iterdir()) == [wrong]
    assert set(scan(snapshot.files)) == {"model-2.safetensors"}
    (report,) = bench.ensure()
    assert bench.content() == FILES
    assert "model-2.safetensors" not in report.fetched
    assert bench.clean()


@pytest.mark.parametrize("kind", ["status", "reset"])
def test_a_hub_that_has_a_moment_is_asked_again(bench, kind):
    bench.retries = 2
    bench.lab.faults({"match": ".", "kind": kind, "status": 429, "retry_after": 1, "times": 2})
    bench.ensure()
    assert bench.content() == FILES


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"gated": True}, "HTTP 401 .*gated; set a token"),
        ({"commit": "d" * 40}, "no such revision"),
    ],
)
def test_a_hub_that_refuses_is_asked_once_and_leaves_nothing(bench, about, message):
    bench.retries = 5
    manifest = bench.publish("org/other", {"config.json": b"{}"})
    bench.lab.add("org/other", {"config.json": b"{}"}, **about)
    with pytest.raises(HubError, match=message):
        bench.ensure(manifest)
    assert len(bench.lab.requests()) == 1
    assert [entry.name for entry in (bench.store / "models/org--other").iterdir()] == [".lock"]


def test_a_file_the_hub_does_not_have(bench):
    (bench.lab.root / "org/body/config.json").unlink()
    with pytest.raises(HubError, match="org/body/config.json at c4bb.*no such file"):
        bench.ensure()
    assert not bench.path.exists()


def test_the_library_fetches_the_same(bench):
    bench.fetcher = LibraryFetcher
    (report,) = bench.ensure()
    assert bench.content() == FILES
    assert bench.clean()
    assert report.fetched_bytes == bench.manifest.size


# -- disk


def test_a_disk_too_small_is_seen_before_the_first_byte(bench, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1000, f_frsize=4096))
    with pytest.raises(StoreError, match=r"expected 5.1 MB free .*seen 4.1 MB; free space"):
        bench.ensure()
    with pytest.raises(StoreError, match="Nothing was fetched"):
        preview([bench.manifest], bench.options())
    assert bench.lab.requests() == []


def test_all_snapshots_and_the_reserve_must_fit_together(bench, monkeypatch):
    draft = bench.publish("org/draft", FILES)
    one = sum(-(-file.size // 4096) * 4096 for file in bench.manifest.files.values())
    free = 2 * one + 1000
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1))
    with pytest.raises(StoreError, match="reserve"):
        bench.ensure(bench.manifest, draft, reserve=1001)
    assert bench.lab.requests() == []
    assert [report.state for report in bench.ensure(bench.manifest, draft, reserve=1000)] == ["fetched"] * 2


def test_what_is_there_already_needs_no_room(bench, monkeypatch):
    bench.ensure()
    (bench.path / "config.json").unlink()
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1, f_frsize=4096))
    assert bench.ensure()[0].fetched == ["config.json"]


def test_a_disk_that_fills_up_on_the_way(bench, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(snapshots, "sync", full)
    with pytest.raises(SnapshotError, match=r"No space left on device; make room.*what was fetched is kept"):
        bench.ensure()
    assert not bench.path.exists()


# -- interruption, company


INTERRUPTED = """
import sys
sys.path[:0] = sys.argv[1:3]
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import ensure, manifest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.hub import Hub, HttpFetcher
import json
def source():
    hub = Hub(sys.argv[3]); hub.load(); return HttpFetcher(hub)
ensure.ensure([manifest.parse(**json.loads(sys.argv[5]))], ensure.Options(sys.argv[4], workers=2), source)
"""


def test_a_killed_run_is_taken_up_by_the_next(bench):
    files = {f"model-{index}.safetensors": bytes([index]) * 1_000_000 for index in range(8)}
    lock = bench.lab.add("org/body", files)
    manifest = model_manifest.parse(**lock)
    bench.lab.faults({"match": "model-[4-7]", "kind": "slow", "bytes_per_second": 200_000})
    root = Path(__file__).resolve().parents[5]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            INTERRUPTED,
            str(root / ".cache/collections"),
            str(root / "tests/unit"),
            bench.lab.url,
            str(bench.store),
            json.dumps(lock),
        ]
    )
    try:
        deadline = time.monotonic() + 30
        while len(scan(bench.partial / "files")) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)
        assert process.poll() is None, "it must still be at work"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not bench.path.exists()
    underway = sum(status.st_size for status in scan(bench.partial / "incoming").values())
    assert underway > 0

    bench.lab.faults()
    bench.lab.forget_requests()
    (report,) = bench.ensure(manifest)
    assert bench.content() == files
    assert bench.clean()
    assert len(report.fetched) == 4
    asked = {line["path"].rpartition("/")[2] for line in bench.lab.requests()}
    assert asked == {f"model-{index}.safetensors" for index in range(4, 8)}
    assert sum(line["bytes"] for line in bench.lab.requests()) == 4_000_000 - underway


def test_two_runs_do_not_collide(bench):
    bench.lab.faults({"match": "model-1", "kind": "slow", "bytes_per_second": 4_000_000})
    results: list[object] = []

    def run():
        try:
            results.extend(bench.ensure())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(getattr(result, "state", repr(result)) for result in results) == ["fetched", "present"]
    assert any(line.startswith("waiting for process") for line in bench.lines)
    assert sum(line["path"].endswith("config.json") for line in bench.lab.requests()) == 1


def test_a_run_that_is_not_let_in_says_who_is_there(bench):
    with (
        locked(bench.path.parent, 0, print),
        pytest.raises(StoreError, match=rf"seen process {os.getpid()} still at work"),
    ):
        bench.ensure(lock_timeout=0)


# -- check mode


def test_a_look_counts_what_is_there_missing_and_left_over(bench, monkeypatch):
    bench.ensure()
    (bench.path / "model-1.safetensors").unlink()
    (bench.path / "empty.txt").unlink()
    os.utime(bench.path / "model-2.safetensors")
    (bench.partial / "incoming").mkdir(parents=True)
    with (bench.partial / "incoming/sparse").open("wb") as file:
        file.truncate(len(WEIGHTS))
        file.write(b"x" * 5000)
    monkeypatch.setattr(snapshots, "sha256_of", lambda *_: pytest.fail("read a file"))
    (report,) = look([bench.manifest], bench.options())
    assert report.look() | {"kept_bytes": 0} == {
        "repository": "org/body",
        "commit": COMMIT,
        "whole": False,
        "bytes": bench.manifest.size,
        "missing_bytes": len(WEIGHTS),
        "unknown_bytes": len(MORE),
        "unchecked": True,
        "kept_bytes": 0,
        "verified_bytes": 0,
        "damaged": [],
        "missing": ["empty.txt", "model-1.safetensors"],
        "unknown": ["model-2.safetensors"],
        "unexpected": [],
    }
    assert 5000 <= report.kept_bytes < 100_000


def test_a_check_hashes_remembers_and_fetches_nothing(bench):
    bench.ensure()
    os.utime(bench.path / "model-2.safetensors")
    bench.lab.forget_requests()
    (report,) = check([bench.manifest], bench.options())
    assert (report.look()["whole"], report.verified_bytes) == (True, len(MORE))
    assert not look([bench.manifest], bench.options())[0].changed
    assert bench.lab.requests() == []


def test_a_check_finds_damage_and_the_stat_cache_no_longer_vouches_for_it(bench):
    bench.ensure()
    spoil(bench.path / "model-1.safetensors")
    (report,) = check([bench.manifest], bench.options(full=True))
    seen = report.look()
    assert (seen["whole"], seen["missing_bytes"], seen["unknown_bytes"]) == (False, len(WEIGHTS), 0)
    assert seen["damaged"][0].startswith("model-1.safetensors: expected sha256")
    after = look([bench.manifest], bench.options())[0].look()
    assert (after["whole"], after["unknown_bytes"]) == (False, len(WEIGHTS))
    assert (bench.path / "model-1.safetensors").read_bytes() != WEIGHTS


def test_a_check_of_a_store_with_nothing_in_it_makes_nothing(bench):
    (report,) = check([bench.manifest], bench.options())
    assert (report.look()["whole"], report.look()["missing_bytes"]) == (False, bench.manifest.size)
    assert not bench.store.exists()


def test_a_preview_writes_nothing_and_asks_nobody(bench):
    (report,) = preview([bench.manifest], bench.options())
    assert (report.state, len(report.fetched), report.fetched_bytes) == (
        "fetched",
        len(FILES),
        bench.manifest.size,
    )
    assert not bench.store.exists()
    assert bench.lab.requests() == []


def test_a_preview_of_damage(bench):
    bench.ensure()
    bench.lab.forget_requests()
    spoil(bench.path / "model-2.safetensors")
    (bench.path / "config.json").unlink()
    before = {entry: entry.stat().st_mtime_ns for entry in bench.path.parent.rglob("*")}
    (report,) = preview([bench.manifest], bench.options())
    assert {entry: entry.stat().st_mtime_ns for entry in bench.path.parent.rglob("*")} == before
    assert (report.state, sorted(report.fetched)) == ("repaired", ["config.json", "model-2.safetensors"])
    diff = report.diff()
    assert "config.json" not in diff["before"] and "config.json " in diff["after"]
    assert "model-2.safetensors expected sha256" in diff["before"]
    assert diff["after"].count("\n") == len(FILES)


def test_a_snapshot_that_is_a_link_is_refused(bench, tmp_path):
    bench.path.parent.mkdir(parents=True)
    bench.path.symlink_to(tmp_path)
    with pytest.raises(SnapshotError, match="expected a directory that this collection made"):
        bench.ensure()
