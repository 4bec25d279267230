"""What the host itself shows after converge."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

STORE = "/srv/sparkfleet/patches"
SCENARIO = Path(__file__).parents[1]
SOURCES = (SCENARIO / "files" / "gemma4_mtp.py", SCENARIO.parent / "lab" / "stub" / "gemma4_mtp.py")


@pytest.fixture
def stored(host):
    """Every file of the store: path -> (mode, owner, sha256)."""
    listed = host.run(f"sudo find {STORE} -type f -printf '%p %m %u\\n'").stdout.splitlines()
    files = {}
    for path, mode, owner in (line.split() for line in listed):
        files[path] = (mode, owner, host.run(f"sudo sha256sum {path}").stdout.split()[0])
    return files


def test_each_patch_is_whole_read_only_and_named_by_its_hash_and_nothing_else_is_there(stored):
    hashes = [hashlib.sha256(source.read_bytes()).hexdigest() for source in SOURCES]
    assert stored == {f"{STORE}/{digest}/gemma4_mtp.py": ("444", "root", digest) for digest in hashes}


def test_the_probe_left_no_container(host):
    assert host.run("sudo docker ps --all --quiet").stdout == ""
