# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store as it lies on a disk: what is in it, and how a thing is removed. No link is followed.

A folder is renamed to `.pruned-…` beside itself and then deleted, so that no half of it ever has its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .._build import buildkit
from .._common.files import sync
from .._common.store import StoreError, locked
from .._models.manifest import COMMIT, REPOSITORY, SHA256
from . import registry
from .references import PruneError, Thing
from .usage import measure

PARTIAL, PRUNED = ".partial-", ".pruned-"
LOCK, PEER = ".lock", ".peer"
REGISTRY, BUILD = "registry", "build"
FORMER_CACHE = "vllm"
"""In `<store>/cache`: what vLLM compiled while all images shared one cache."""
_COMPANION = re.compile(rf"\.+[a-z]+-({COMMIT.pattern})\..+")
"""Files beside a snapshot that are about it alone: .verified-<commit>.json, a draft of it, and the like."""
_ESCAPED = re.compile(r"\\([0-7]{3})")


# -- what is there


def things(store: Path) -> list[Thing]:
    """Everything in the store, down to the things that have their own name."""
    return [thing for entry in _entries(store) for thing in _area(entry)]


def _area(entry: os.DirEntry[str]) -> list[Thing]:
    path, folder = Path(entry.path), entry.is_dir(follow_symlinks=False)
    if folder and entry.name == "models":
        return [thing for inner in _entries(path) for thing in _of_models(inner)]
    if folder and entry.name == "patches":
        return [_patch(inner) for inner in _entries(path)]
    if folder and entry.name == "supervisor":
        return [_supervisor(inner) for inner in _entries(path)]
    if folder and entry.name == REGISTRY:
        return registry.things(path)
    if folder and entry.name == BUILD:
        return of_build(path)
    if folder and entry.name == "cache":
        return [thing for inner in _entries(path) for thing in _of_cache(inner)]
    return [_unknown(path)]


def _of_cache(entry: os.DirEntry[str]) -> list[Thing]:
    """What servers compiled, by the digest of their image, and what images answered. A folder of an earlier layout has no digest."""
    path = Path(entry.path)
    if not entry.is_dir(follow_symlinks=False):
        return [_unknown(path)]
    if entry.name == "images":
        return [Thing("answers", "of images", entry.path, usage=measure(path))]
    if entry.name == "compiled":
        return [_compiled(inner) for inner in _entries(path)]
    if entry.name == FORMER_CACHE or entry.name.startswith(PRUNED):
        kind = "cache" if entry.name == FORMER_CACHE else "leftover"
        return [Thing(kind, f"cache {entry.name}", entry.path, usage=measure(path))]
    return [_unknown(path)]


def _compiled(entry: os.DirEntry[str]) -> Thing:
    path = Path(entry.path)
    if entry.is_dir(follow_symlinks=False) and entry.name.startswith(PRUNED):
        return Thing("leftover", f"cache {entry.name}", entry.path, usage=measure(path))
    if not entry.is_dir(follow_symlinks=False) or not SHA256.fullmatch(entry.name):
        return _unknown(path)
    return Thing("cache", f"cache of {entry.name}", entry.path, entry.name, measure(path))


def _of_models(entry: os.DirEntry[str]) -> list[Thing]:
    path = Path(entry.path)
    if not entry.is_dir(follow_symlinks=False):
        return [_unknown(path)]
    if entry.name == PEER:
        return []
    return repository(path) if REPOSITORY.fullmatch(entry.name.replace("--", "/", 1)) else [_unknown(path)]


def repository(folder: Path) -> list[Thing]:
    """What lies under `<store>/models/<org>--<name>`."""
    found: dict[tuple[str, str], Thing] = {}
    others: list[Thing] = []
    beside: list[tuple[str, Path]] = []
    name = folder.name.replace("--", "/", 1)
    for entry in _entries(folder):
        path, inner = Path(entry.path), entry.is_dir(follow_symlinks=False)
        partial = entry.name.removeprefix(PARTIAL)
        companion = _COMPANION.fullmatch(entry.name)
        if inner and entry.name.startswith(PRUNED):
            others.append(Thing("leftover", f"{name} {entry.name}", entry.path, usage=measure(path)))
        elif inner and COMMIT.fullmatch(partial):
            kind = "snapshot" if partial == entry.name else "partial"
            found[kind, partial] = Thing(kind, f"{name}@{partial}", entry.path, partial, measure(path))
        elif companion and entry.is_file(follow_symlinks=False):
            beside.append((companion[1], path))
        elif not (entry.name == LOCK and entry.is_file(follow_symlinks=False)):
            others.append(_unknown(path))
    for commit, path in beside:
        owner = found.get(("snapshot", commit)) or found.get(("partial", commit))
        if owner is None:
            others.append(Thing("leftover", f"{name} {path.name}", str(path), commit, measure(path)))
        else:
            owner.companions.append(str(path))
            owner.usage.add(measure(path))
    things = [*found.values(), *others]
    for thing in things:
        thing.guard = str(folder)
    return things


def of_build(folder: Path) -> list[Thing]:
    """What lies where images are built. Unless a build runs, everything but the log is left over from one that did not end."""
    kinds = dict.fromkeys(buildkit.PASSING, "leftover") | {buildkit.LOG: "log"}
    found: list[Thing] = []
    for entry in _entries(folder):
        path, kind = Path(entry.path), "" if entry.is_symlink() else kinds.get(entry.name, "")
        if kind:
            usage = measure(path)
            found.append(Thing(kind, f"build {entry.name}", entry.path, usage=usage, guard=str(folder)))
        elif entry.name != LOCK:
            found.append(_unknown(path))
    return found


def guarded(folder: Path) -> list[Thing]:
    """What lies in a folder with its own lock."""
    look = {REGISTRY: registry.things, BUILD: of_build}.get(folder.name, repository)
    return look(folder)


def _patch(entry: os.DirEntry[str]) -> Thing:
    path = Path(entry.path)
    if not entry.is_dir(follow_symlinks=False):
        return _unknown(path)
    if entry.name.startswith(PRUNED):
        return Thing("leftover", f"patches {entry.name}", entry.path, usage=measure(path))
    if not SHA256.fullmatch(entry.name):
        return _unknown(path)
    files = ", ".join(sorted(inner.name for inner in os.scandir(path))) or "empty"
    return Thing("patch", f"{files}@{entry.name}", entry.path, entry.name, measure(path))


def _supervisor(entry: os.DirEntry[str]) -> Thing:
    path = Path(entry.path)
    if not entry.is_dir(follow_symlinks=False):
        return _unknown(path)
    if entry.name.startswith("."):
        return Thing("leftover", f"supervisor {entry.name}", entry.path, usage=measure(path))
    if not SHA256.fullmatch(entry.name):
        return _unknown(path)
    return Thing("supervisor", f"supervisor@{entry.name}", entry.path, entry.name, measure(path))


def _unknown(path: Path) -> Thing:
    return Thing("unknown", path.name, str(path), usage=measure(path))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def mount_points(mountinfo: Path = Path("/proc/self/mountinfo")) -> list[str]:
    """Where something is mounted on this host (proc_pid_mountinfo(5), field 5).

    :raises PruneError: a line names no mount point
    """
    lines = mountinfo.read_text(errors="surrogateescape").splitlines()
    fields = [line.split()[4] for line in lines if len(line.split()) > 4]
    if len(fields) < len(lines):
        raise PruneError(
            f"{mountinfo}: expected where something is mounted in each line, seen another; nothing was removed"
        )
    return [_ESCAPED.sub(lambda match: chr(int(match[1], 8)), field) for field in fields]


# -- who is at work


def holder(lock: Path) -> str:
    """The process that holds a lock file, in words; empty when none does. Writes nothing."""
    try:
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = file.read().strip()
                return f"process {pid}" if pid else "another run"
    except FileNotFoundError:
        pass
    return ""


def peer(store: Path) -> str:
    """The process that fans models of this store out at the moment, in words; empty when none does."""
    return holder(store / "models" / PEER / "lock")


@contextlib.contextmanager
def at_work(folder: Path, keep_out: bool) -> Iterator[str]:
    """Who works in a folder that has a lock; empty when nobody does.

    :param keep_out: True: nobody can begin to work until the block ends; False: only look
    """
    with contextlib.ExitStack() as stack:
        owner = "" if keep_out else holder(folder / LOCK)
        if keep_out:
            try:
                stack.enter_context(locked(folder, 0.0, lambda text: None))
            except StoreError:
                owner = holder(folder / LOCK) or "a process that has just ended"
        yield owner


# -- how it goes


def remove(path: Path) -> None:
    """A file or a whole folder, if it is there. Links are not followed.

    :raises OSError: something of it is left
    """
    # A container may have nested folders deeper than shutil.rmtree goes, which holds each of them open.
    argv = ["rm", "--recursive", "--force", "--one-file-system", "--", str(path)]
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise OSError(
            done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{path} is still there"
        )


def delete(thing: Thing) -> None:
    """Delete a thing with what stands beside it.

    :raises OSError: something of it is left; never under its own name
    """
    path = Path(thing.path)
    if thing.kind in ("registry", registry.LEFT):
        registry.delete(thing)
        return
    if thing.kind == "leftover":
        remove(path)
        return
    aside = path.with_name(PRUNED + path.name.lstrip("."))
    remove(aside)
    path.rename(aside)
    sync(path.parent)
    remove(aside)
    for companion in thing.companions:
        Path(companion).unlink(missing_ok=True)
