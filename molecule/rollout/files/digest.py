"""Prints one line for each thing on this host that a run could change: files with their content, containers, images."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

WATCHDOG = Path("/var/lib/sparkfleet/watchdog")
"""Its own looks are no change by a run."""
TREES = ("/srv/sparkfleet", "/var/lib/sparkfleet", "/opt/sparkfleet", "/etc")


def line(path: Path) -> str:
    seen = path.lstat()
    content = ""
    if path.is_symlink():
        content = str(path.readlink())
    elif path.is_file():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{path} {seen.st_mode:o} {seen.st_uid}:{seen.st_gid} {seen.st_ino} {content}"


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


for tree in TREES:
    for path in sorted([Path(tree), *Path(tree).rglob("*")]):
        if WATCHDOG not in path.parents:
            print(line(path))
for kind in ("container", "image"):
    known = sorted(set(docker(kind, "ls", "--all", "--quiet", "--no-trunc").split()))
    for thing in json.loads(docker(kind, "inspect", *known)) if known else []:
        # The engine names these in any order.
        for name in {"Mounts", "RepoTags", "RepoDigests"} & thing.keys():
            thing[name] = sorted(thing[name] or [], key=json.dumps)
        print(json.dumps(thing, sort_keys=True))
