"""A folder that one run has at a time, on a disk that has trouble."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import store


def test_a_folder_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    with (
        pytest.raises(
            store.StoreError, match=r"expected to write .*\.lock, seen: No space left on device; make room"
        ),
        store.locked(tmp_path / "models", 0.0, print),
    ):
        raise AssertionError("the block began")


def test_a_lock_without_room_for_a_name_holds(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with store.locked(tmp_path, 0.0, print):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    monkeypatch.setattr(store.os, "write", full)
    with (
        store.locked(tmp_path, 0.0, print),
        pytest.raises(store.StoreError, match="still at work"),
        store.locked(tmp_path, 0.0, print),
    ):
        raise AssertionError("two of them")
