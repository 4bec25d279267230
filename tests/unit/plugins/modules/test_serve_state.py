"""The record of what serves, on a disk that is full."""

from __future__ import annotations

import errno
import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import files
from ansible_collections.sparkfleet.vllm.plugins.modules import serve_state

SERVING = {"container": {"name": "c", "image": "i"}, "models": {}, "files": []}


def record(capsys, path, **serving):
    with patch_module_args({"path": str(path), "serving": SERVING | serving}), pytest.raises(SystemExit):
        serve_state.main()
    return json.loads(capsys.readouterr().out)


def test_a_full_disk_is_said_and_leaves_the_record(capsys, tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    assert record(capsys, path)["changed"]
    before = path.read_bytes()

    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    result = record(capsys, path, recipe="another")
    assert f"expected to write {path}, seen: No space left on device; make room" in result["msg"]
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["state.json"]
