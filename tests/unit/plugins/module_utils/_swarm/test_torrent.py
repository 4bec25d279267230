from __future__ import annotations

import hashlib
import os
import random

import libtorrent
import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import manifest as model_manifest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import pieces
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import snapshot as snapshots
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.ensure import Options, check, ensure
from ansible_collections.sparkfleet.vllm.plugins.module_utils._swarm import torrent
from helpers.swarm import COMMIT, KIB, MIB, content, manifest

SIZES = [
    0,
    1,
    16 * KIB - 1,
    16 * KIB,
    16 * KIB + 1,
    256 * KIB - 1,
    256 * KIB,
    256 * KIB + 1,
    512 * KIB,
    3 * MIB + 5,
]
FILES = {f"{'sub/' * (n % 2)}file-{n}": content(size, str(size)) for n, size in enumerate(SIZES)}


def files_read(monkeypatch):
    """The names of the files that are hashed from here on, as they are."""
    read: list[str] = []
    hash_file = torrent.hash_file

    def noted(path, *rest):
        read.append(path.name)
        return hash_file(path, *rest)

    monkeypatch.setattr(torrent, "hash_file", noted)
    return read


def parse(files, **more):
    lock = manifest(files, **more)
    return model_manifest.parse(lock["repository"], lock["commit"], lock["files"])


@pytest.fixture
def snapshot(tmp_path):
    snapshot = snapshots.Snapshot(str(tmp_path), parse(FILES), 2, print)
    for path, data in FILES.items():
        (snapshot.path / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot.path / path).write_bytes(data)
    check([snapshot.manifest], Options(str(tmp_path)))
    return snapshot


@pytest.mark.parametrize("size", SIZES[1:])
def test_hashes_are_those_of_libtorrent(tmp_path, size):
    piece = 256 * KIB
    path = tmp_path / "file"
    path.write_bytes(content(size, "x"))
    made = libtorrent.create_torrent(
        [libtorrent.create_file_entry("file", size)], piece, libtorrent.create_torrent.v2_only
    )
    libtorrent.set_piece_hashes(made, str(tmp_path))
    theirs = made.generate()
    root = theirs[b"info"][b"file tree"][b"file"][b""][b"pieces root"]

    hashed = pieces.hash_file(path, piece)
    assert hashed.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    if size > piece:
        assert hashed.pieces == theirs[b"piece layers"][root]
    else:
        assert hashed.pieces == root


def test_a_read_that_comes_in_parts_hashes_the_same(tmp_path, monkeypatch):
    """A file system may give less than was asked for."""
    path = tmp_path / "file"
    path.write_bytes(content(MIB + 77, "x"))
    whole = pieces.hash_file(path, 256 * KIB)
    chance = random.Random(1)

    class Stingy:
        def __init__(self, file):
            self.file = file

        def readinto(self, buffer):
            return self.file.readinto(buffer[: chance.randint(1, 30000)])

    fill = pieces._fill
    monkeypatch.setattr(pieces, "_fill", lambda file, buffer: fill(Stingy(file), buffer))
    parts = pieces.hash_file(path, 256 * KIB)
    assert (parts.sha256, parts.pieces) == (whole.sha256, whole.pieces)


def test_libtorrent_takes_the_torrent_and_its_salt_names_it(snapshot):
    hashes = torrent.describe(snapshot)
    made = torrent.metainfo(snapshot.manifest, hashes, "a" * 32)
    assert made == torrent.metainfo(snapshot.manifest, dict(reversed(hashes.items())), "a" * 32)
    one = libtorrent.load_torrent_buffer(made).ti
    other = libtorrent.load_torrent_buffer(torrent.metainfo(snapshot.manifest, hashes, "b" * 32)).ti
    assert one.name() == COMMIT and one.priv()
    assert one.info_hashes().has_v2() and not one.info_hashes().has_v1()
    assert one.info_hashes().v2 != other.info_hashes().v2
    sizes = [
        one.layout().file_size(n) for n in range(one.num_files()) if ".pad" not in one.layout().file_path(n)
    ]
    assert sizes == [len(FILES[path]) for path in sorted(FILES) if FILES[path]]


def test_piece_size_follows_from_the_size_alone():
    assert pieces.piece_size(0) == pieces.piece_size(100 * MIB) == 64 * KIB
    assert pieces.piece_size(27_000_000_000) == 8 * MIB
    for total in (1, 10**8, 10**9, 5 * 10**9, 10**11):
        piece = pieces.piece_size(total)
        assert piece & (piece - 1) == 0
        assert piece == 8 * MIB or total <= piece * 2048


def test_a_description_is_taken_back_and_another_is_refused(snapshot):
    hashes = torrent.describe(snapshot)
    text = torrent.encode(snapshot.manifest, hashes)
    assert torrent.decode(snapshot.manifest, text) == hashes
    for wrong in ("", text[2:], "2:" + text[2:], text[:-8], text + "AAAA", text[:9] + "*" + text[10:], "1:é"):
        with pytest.raises(
            torrent.DescriptionError, match=f"expected .* piece hashes of org/body at {COMMIT}"
        ):
            torrent.decode(snapshot.manifest, wrong)


def test_what_was_hashed_is_not_read_again(snapshot, monkeypatch):
    hashes = torrent.describe(snapshot)
    read = files_read(monkeypatch)
    assert torrent.describe(snapshot) == hashes and read == []
    (snapshot.path / "file-4").write_bytes(FILES["file-4"])
    assert torrent.describe(snapshot) == hashes and read == ["file-4"]


def test_what_is_fetched_is_hashed_for_it_in_the_same_pass(tmp_path, monkeypatch):
    class Source:
        resumes = False
        blame = ""

        def fetch(self, manifest, path, target, received):
            target.write_bytes(FILES[path])

    ensure([parse(FILES)], Options(str(tmp_path)), Source)
    fetched = snapshots.Snapshot(str(tmp_path), parse(FILES), 2, print)
    hashes = {path: pieces.hash_file(fetched.path / path, 64 * KIB).pieces for path in FILES}
    monkeypatch.setattr(torrent, "hash_file", None)
    assert torrent.describe(fetched) == hashes


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"version":1', '"version":0'),
        lambda text: text.replace(f'"piece":{64 * KIB}', '"piece":16384'),
        lambda text: text[:-40],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace(hashlib.sha256(FILES["file-4"]).hexdigest(), "0" * 64),
    ],
)
def test_a_cache_that_is_not_of_these_bytes_is_no_cache(snapshot, monkeypatch, damage):
    hashes = torrent.describe(snapshot)
    cache = snapshot.pieces_path
    text = cache.read_text()
    assert damage(text) != text
    cache.write_text(damage(text))
    read = files_read(monkeypatch)
    assert torrent.describe(snapshot) == hashes
    assert "file-4" in read


def test_without_remembering_nothing_is_written(snapshot):
    torrent.describe(snapshot, remember=False)
    assert not snapshot.pieces_path.exists()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (lambda path: path.write_bytes(b"x" * path.stat().st_size), "expected sha256 .*, seen "),
        (lambda path: path.write_bytes(b"x"), "expected 16385 bytes, seen 1"),
        (lambda path: path.unlink(), "expected a file, seen none"),
        (
            lambda path: (path.rename(path.with_name("moved")), path.symlink_to("moved")),
            "expected a regular file, seen l",
        ),
    ],
)
def test_what_the_lock_does_not_say_is_not_described(snapshot, damage, seen, known):
    if known:
        torrent.describe(snapshot)
    damage(snapshot.path / "file-4")
    with pytest.raises(snapshots.SnapshotError, match=f"file-4: {seen}.*not given to other hosts"):
        torrent.describe(snapshot)


def test_everybody_may_read_the_cache(snapshot):
    mask = os.umask(0o077)
    try:
        torrent.describe(snapshot)
    finally:
        os.umask(mask)
    assert snapshot.pieces_path.stat().st_mode & 0o777 == 0o644
