# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a store may go: what is there, who refers to it, and the verdict. Pure functions of data.

Everything in the store is named by its content: a commit, a sha256 or an image digest. So whatever names that content
anywhere (a state, a lock, a container) refers to the thing, whatever path it gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from .._common.progress import volume
from .usage import Usage

KEPT, REMOVED, UNKNOWN, FAILED = "kept", "removed", "unknown", "failed"
STATE_VERSION = 1
NOTHING = "nothing refers to it"
_SHORT = re.compile(r"([0-9a-f]{12})[0-9a-f]{28,}")
_CONTENT = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{40})(?![0-9a-f])")


class PruneError(ValueError):
    """Nothing may be removed; the text says what was expected, seen, and what to do."""


@dataclass
class Thing:
    """One thing of the store, or one image, and what becomes of it."""

    kind: str
    """snapshot, partial, patch, image, registry (an image in the fleet registry's storage), registry partial, leftover
    (of an interrupted prune or build), log, cache (what the servers of an image compiled), answers (of images), supervisor (of units), unknown"""
    name: str
    path: str
    """Where it lies; for an image its reference by digest."""
    content: str = ""
    """The commit or sha256 that names it."""
    usage: Usage = field(default_factory=Usage)
    companions: list[str] = field(default_factory=list)
    """Files beside it that are about nothing else; they go with it."""
    members: list[str] = field(default_factory=list)
    """Further content that it consists of. A reference to that content is a reference to the thing."""
    guard: str = ""
    """Folder whose lock a run holds while it works on the thing; empty if there is none."""
    size: int | None = None
    """Bytes, where the engine counts them and not the file system."""
    at_most: bool = False
    """Whether `size` may be too large: it counts layers that stay if the engine does not know that they are shared."""
    verdict: str = ""
    why: str = ""

    @property
    def bytes(self) -> int:
        return self.usage.size if self.size is None else self.size

    def judged(self, verdict: str, why: str) -> Thing:
        self.verdict, self.why = verdict, why
        return self

    def result(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "path": self.path,
            "bytes": self.bytes,
            "at_most": self.at_most,
            "verdict": self.verdict,
            "why": self.why,
        }


# -- who refers to what


@dataclass
class References:
    """Who refers to which content, and who uses which directories of the host."""

    names: dict[str, list[str]] = field(default_factory=dict)
    """{commit or sha256: who}"""
    paths: list[tuple[str, str]] = field(default_factory=list)
    """(directory or file of the host, who)"""

    def refer(self, who: str, data: Any) -> None:
        for name in content_names(data):
            whose = self.names.setdefault(name, [])
            if who not in whose:
                whose.append(who)

    def of(self, thing: Thing) -> list[str]:
        """Who refers to the thing; empty when nobody does."""
        whose = [who for content in (thing.content, *thing.members) for who in self.names.get(content, [])]
        for path, who in self.paths:
            if who in whose:
                continue
            if within(path, thing.path):
                whose.append(who)
            elif within(thing.path, path):
                whose.append(f"{who}, which mounts {path}")
        return list(dict.fromkeys(whose))


def content_names(data: Any) -> set[str]:
    """Every commit and sha256 that stands anywhere in `data`, keys of mappings included."""
    if isinstance(data, str):
        return set(_CONTENT.findall(data))
    if isinstance(data, Mapping):
        return content_names(list(data.keys())) | content_names(list(data.values()))
    if isinstance(data, Sequence) and not isinstance(data, bytes):
        return {name for item in data for name in content_names(item)}
    return set()


def within(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies below it, by name alone."""
    return PurePosixPath(path).is_relative_to(folder)


def refer_state(references: References, state: Any, path: str, resolve: Callable[[str], str] = str) -> None:
    """Refer to what serves, and to what a rollback would start.

    :param resolve: gives the real path of a path
    :raises PruneError: the state does not say what serves
    """
    expected = f"{path}: expected the state of a Spark that serves (version {STATE_VERSION}, with current)"
    cure = "nothing was removed; deploy with playbooks/site.yml first"
    if not isinstance(state, Mapping) or state.get("version") != STATE_VERSION:
        version = state.get("version") if isinstance(state, Mapping) else None
        raise PruneError(f"{expected}, seen version {version!r}; {cure}")
    entries = {name: state.get(name) for name in ("current", "last_good")}
    for name, entry in entries.items():
        if entry is None and name == "last_good":
            continue
        if not isinstance(entry, Mapping) or not content_names(entry.get("serving")):
            raise PruneError(f"{expected}, seen {name} without what it serves; {cure}")
        references.refer(name, entry["serving"])
        references.paths += [(resolve(source), name) for source in _mounted(entry["serving"])]


def _mounted(serving: Any) -> list[str]:
    """Paths on the host that a recorded container mounts."""
    container = serving.get("container") if isinstance(serving, Mapping) else None
    volumes = container.get("volumes") if isinstance(container, Mapping) else None
    if not isinstance(volumes, list):
        return []
    return [text.partition(":")[0] for text in volumes if isinstance(text, str)]


def refer_keep(references: References, keep: Iterable[str]) -> None:
    """:raises PruneError: an entry that names no content, and so would keep nothing"""
    for entry in keep:
        if not content_names(entry):
            raise PruneError(
                f"keep: expected a commit, a sha256 or an image by digest, seen {entry!r}; nothing was removed; "
                "give the full hexadecimal name"
            )
        references.refer("keep", entry)


def refer_containers(
    references: References,
    containers: Sequence[Mapping[str, Any]],
    volumes: Mapping[str, str],
    store: str,
    overlooked: Iterable[str],
    resolve: Callable[[str], str],
) -> None:
    """What the containers of the host mount, were made from, or name. Running or not.

    :param containers: as the engine lists them
    :param volumes: {name of a volume: directory that it stands for}
    :param store: its real path
    :param overlooked: containers that may mount a directory around the whole store without using it
    :param resolve: gives the real path of a path
    """
    ignored = set(overlooked)
    for container in containers:
        name = container_name(container)
        who = f"container {name}"
        references.refer(who, container)
        for mount in container.get("Mounts") or []:
            sources = (mount.get("Source"), volumes.get(mount.get("Name") or ""))
            for source in {resolve(source) for source in sources if source}:
                if not (within(store, source) and name in ignored):
                    references.paths.append((source, who))


def container_name(container: Mapping[str, Any]) -> str:
    names = container.get("Names") or []
    return str(names[0]).lstrip("/") if names else str(container.get("Id"))[:12]


# -- images


def familiar(reference: str) -> str:
    """An image's name as the engine lists it: without Docker Hub's own prefixes."""
    for prefix in ("index.docker.io/", "docker.io/"):
        reference = reference.removeprefix(prefix)
    return reference.removeprefix("library/")


def judge_images(
    brought: Sequence[str],
    images: Sequence[Mapping[str, Any]],
    containers: Sequence[Mapping[str, Any]],
    references: References,
    packed_counted: bool = True,
    elsewhere: Callable[[str], str] = lambda reference: "",
) -> list[Thing]:
    """The images of the ledger, each with its verdict. Any other image is none of ours and not in the result.

    :param images: as the engine lists them
    :param packed_counted: whether what the engine says of shared layers is all of them
    :param elsewhere: where the image store that the engine does not use has an image; empty when it has not
    """
    users: dict[str, list[str]] = {}
    for container in containers:
        users.setdefault(str(container.get("ImageID")), []).append(f"container {container_name(container)}")
    on_host = {digest: image for image in images for digest in image.get("RepoDigests") or []}
    things: list[Thing] = []
    for reference in brought:
        thing = Thing("image", reference, reference, reference.partition("@sha256:")[2], size=0)
        things.append(thing)
        image = on_host.get(familiar(reference))
        if image is not None:
            # What other images share stays; the engine says how much that is, or -1.
            shared = int(image["SharedSize"]) if image.get("SharedSize") is not None else -1
            thing.size = int(image.get("Size") or 0) - max(0, shared)
            thing.at_most = shared < 0 or (shared > 0 and not packed_counted)
        whose = references.of(thing) + (users.get(str(image["Id"]), []) if image else [])
        if whose:
            thing.judged(KEPT, ", ".join(dict.fromkeys(whose)))
        elif image is None and (where := elsewhere(familiar(reference))):
            # Forgotten, nobody could remove it once the engine is back.
            thing.judged(KEPT, f"in {where}, the image store that the engine does not use now")
        elif image is None:
            thing.judged(REMOVED, "no longer on the host: forgotten")
    ours = {familiar(thing.path) for thing in things if not thing.verdict}
    for thing in things:
        if thing.verdict:
            continue
        image = on_host[familiar(thing.path)]
        names = [name for name in _names(image) if name not in ours]
        thing.judged(KEPT, f"also known as {', '.join(names)}") if names else thing.judged(REMOVED, NOTHING)
    return things


def _names(image: Mapping[str, Any]) -> Iterator[str]:
    """Everything the host calls an image."""
    for name in [*(image.get("RepoTags") or []), *(image.get("RepoDigests") or [])]:
        if "<none>" not in name:
            yield name


# -- the store


def judge_store(
    things: Iterable[Thing],
    references: References,
    peer: str,
    mounts: Sequence[str],
    partial_age: float,
    now: float,
) -> list[Thing]:
    """Every thing of a store with its verdict.

    :param peer: who fans models out on this host at the moment; empty when nobody does
    :param mounts: where something is mounted on this host
    :param partial_age: seconds; a partial snapshot that was written to since then is kept
    :param now: Unix time
    """
    return [_judge(thing, references, peer, mounts, partial_age, now) for thing in things]


def _judge(
    thing: Thing,
    references: References,
    peer: str,
    mounts: Sequence[str],
    partial_age: float,
    now: float,
) -> Thing:
    if thing.kind == "unknown":
        return thing.judged(UNKNOWN, thing.why or "not made by this collection")
    if thing.kind == "answers":
        return thing.judged(KEPT, "an image need not be asked again")
    if thing.kind == "log":
        return thing.judged(KEPT, "it says how the last build went")
    whose = references.of(thing)
    if whose:
        return thing.judged(KEPT, ", ".join(whose))
    mounted = [mount for mount in mounts if within(mount, thing.path)]
    if mounted:
        return thing.judged(KEPT, f"something is mounted on {mounted[0]}")
    if peer and thing.kind in ("snapshot", "partial"):
        return thing.judged(KEPT, f"{peer} fans out models of this store; it ends by itself")
    if thing.kind == "leftover":
        return thing.judged(REMOVED, "left by an interrupted run")
    if thing.kind in ("partial", "registry partial") and now - thing.usage.newest < partial_age:
        return thing.judged(
            KEPT, f"written to in the last {partial_age / 3600:.0f} h: a download may resume from it"
        )
    return thing.judged(REMOVED, NOTHING)


def freed(things: Iterable[Thing]) -> int:
    """Bytes that come free with the removed things: a file only if no other link to it stays."""
    total, usage = 0, Usage()
    for thing in things:
        if thing.verdict != REMOVED:
            continue
        total += thing.size or 0
        usage.add(thing.usage)
    return total + sum(size for size, seen, links in usage.inodes.values() if seen >= links)


def diff(things: Sequence[Thing]) -> dict[str, str]:
    def text(some: Iterable[Thing]) -> str:
        return "".join(f"{thing.kind} {thing.path} {thing.bytes}\n" for thing in some)

    return {"before": text(things), "after": text(thing for thing in things if thing.verdict != REMOVED)}


# -- for people

COLUMNS = ("host", "what", "name", "size", "verdict", "why")


def rows(
    host: str, pruned: Mapping[str, Any], failure: Mapping[str, Any] | None, check: bool
) -> list[dict[str, str]]:
    """One host as rows of a table, keyed by :data:`COLUMNS`: a row a thing, then the total.

    :param pruned: what store_prune returned; of one that failed, as far as it got
    :param failure: the failed result with the name of its task, if the host failed
    """

    def row(*values: str) -> dict[str, str]:
        return dict(zip(COLUMNS, (host, *values), strict=True))

    would = {REMOVED: "would go"} if check else {}
    made = [
        row(
            thing["kind"],
            _SHORT.sub(r"\1", thing["name"]),
            _bytes(thing["bytes"], thing["at_most"]),
            would.get(thing["verdict"], thing["verdict"]),
            _SHORT.sub(r"\1", thing["why"]),
        )
        for thing in pruned.get("things") or []
    ]
    if failure is not None:
        made.append(row("-", "-", "-", "FAILED", failure["task"]))
    if pruned:
        freed = "would come free" if check else "freed"
        at_most = bool(pruned.get("freed_at_most"))
        made.append(row("total", "-", _bytes(pruned.get("freed_bytes", 0), at_most), freed, ""))
    return made


def _bytes(count: int, at_most: bool) -> str:
    return f"at most {volume(count)}" if at_most else volume(count)
