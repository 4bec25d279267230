"""Disk usage of what others have put there."""

from __future__ import annotations

import os

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import probes
from ansible_collections.sparkfleet.vllm.plugins.module_utils._prune.usage import measure


@pytest.fixture
def deep(tmp_path):
    """Folders and files whose paths are longer than any path may be."""
    top = tmp_path / "cache"
    top.mkdir()
    (top / "seen").write_bytes(b"x" * 100_000)
    handle = os.open(top, os.O_RDONLY)
    for _level in range(25):
        os.mkdir("d" * 200, dir_fd=handle)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=handle)
        os.close(os.open("f" * 250, os.O_CREAT | os.O_WRONLY, dir_fd=handle))
        os.close(handle)
        handle = inner
    os.close(handle)
    return top


def test_folders_that_no_path_reaches_are_passed_over(deep):
    assert measure(deep).size >= 100_000
    assert probes._held(deep) >= 100_000


def test_another_error_is_not_taken_for_an_empty_folder(deep, monkeypatch):
    def fail(_path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match="Input/output"):
        measure(deep)
