from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import files


def test_a_file_is_written_whole_with_its_mode_and_its_directory(tmp_path):
    path = tmp_path / "new" / "file"
    files.write(path, b"x", 0o444)
    assert path.read_bytes() == b"x"
    assert path.stat().st_mode & 0o777 == 0o444


def test_whoever_has_the_old_file_open_keeps_it(tmp_path):
    path = tmp_path / "file"
    files.write(path, b"old")
    with path.open("rb") as reader:
        files.write(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [Path(path)]


def test_swapping_without_renameat2(tmp_path, monkeypatch):
    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    one, other = tmp_path / "p/files", tmp_path / "c"
    for folder in (one, other):
        folder.mkdir(parents=True)
        (folder / folder.name).touch()
    files.exchange(one, other)
    assert (other / "files").exists() and not one.exists()


@pytest.mark.parametrize(
    ("uid", "mode", "said"),
    [
        (0, 0o40755, ""),
        (0, 0o40775, ""),  # a group that somebody asked for
        (1000, 0o40755, "owned by uid 1000"),
        (0, 0o41777, "writable by everybody (mode 1777)"),
        (1000, 0o100666, "owned by uid 1000 and writable by everybody (mode 0666)"),
    ],
)
def test_who_may_alter_a_file(monkeypatch, uid, mode, said):
    monkeypatch.setattr(files.os, "geteuid", lambda: 0)
    monkeypatch.setattr(Path, "stat", lambda _path: SimpleNamespace(st_uid=uid, st_mode=mode))
    assert files.alterable(Path("/srv/a")) == said
