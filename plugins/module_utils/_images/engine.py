# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Docker engine says while it pulls, as one line for a person; and what its refusals mean. Pure.

The stream of POST /images/create has one object for each step of a layer (`id`), with `status` and, while bytes move,
`progressDetail` {current, total}. It counts unpacking in bytes of the packed layer, too. An engine with containerd's image store
gives seconds instead (`units`: s).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._common import shape
from .._common.shape import Maybe

PULLED = ("Verifying Checksum", "Download complete")
WINDOW = 15.0
"""Seconds over which the rate is taken."""


EVENT = {
    "id": Maybe(str),
    "status": Maybe(str),
    "progressDetail": Maybe({"current": Maybe(int), "total": Maybe(int), "units": Maybe(str)}),
    "error": Maybe(str),
    "errorDetail": Maybe({"message": Maybe(str)}),
    "aux": Maybe({"Digest": Maybe(str)}),
}
"""An event of a pull or a push. An event of another shape is ignored: the digest tells what was brought."""


class PullError(Exception):
    """The engine did not pull the image. The text says expected, seen and what to do."""

    def __init__(self, text: str, again: bool = False) -> None:
        super().__init__(text)
        self.again = again
        """Whether another try may succeed."""


@dataclass
class Layer:
    pulled: int = 0
    unpacked: int = 0
    total: int = 0  # 0 until the engine begins with it
    seconds: int = 0  # how long it unpacks, from an engine that counts no bytes meanwhile
    done: bool = False


class Pull:
    """How far a pull is. Layers that the host has already do not count."""

    def __init__(self) -> None:
        self._layers: dict[str, Layer] = {}
        self._marks: list[tuple[float, int]] = []

    @property
    def pulled(self) -> int:
        """Bytes that were transferred."""
        return sum(layer.pulled for layer in self._layers.values())

    def feed(self, event: Any) -> None:
        """:raises PullError: the engine gives up"""
        if shape.wrong(event, EVENT):
            return
        if said := error_of(event):
            raise refusal(said)
        name, status = event.get("id"), event.get("status") or ""
        if not name or status == "Already exists" or status.startswith("Pulling from"):
            return
        layer = self._layers.setdefault(name, Layer())
        detail = event.get("progressDetail") or {}
        total, current = detail.get("total") or 0, detail.get("current") or 0
        if status == "Downloading" and total:
            layer.total, layer.pulled = total, current
        elif status in PULLED:
            layer.pulled = layer.total
        elif status == "Extracting" and total:
            layer.unpacked = current
        elif status == "Extracting" and detail.get("units") == "s":
            layer.seconds = current
        elif status == "Pull complete":
            layer.pulled = layer.unpacked = layer.total
            layer.done = True

    def line(self, now: float) -> str:
        """`image: 3.1 of 9.8 GB pulled, 4.2 GB unpacked, 120 MB/s`; empty while there is nothing to say.

        The engine begins with a few layers at a time, so the total is only what is known by now.

        :param now: seconds, of a clock that only moves forward
        """
        layers = self._layers.values()
        total = sum(layer.total for layer in layers)
        unpacking = max((layer.seconds for layer in layers if not layer.done), default=0)
        if not total:
            return f"image: unpacking, {unpacking} s" if unpacking else ""
        self._marks = [mark for mark in self._marks if now - mark[0] <= WINDOW]
        since, before = self._marks[0] if self._marks else (now, self.pulled)
        rate = (self.pulled - before) / (now - since) if now > since else 0.0
        self._marks.append((now, self.pulled))
        known = "" if all(layer.total or layer.done for layer in layers) else "at least "
        unpacked = sum(layer.unpacked for layer in layers)
        text = f"image: {gigabytes(self.pulled)} of {known}{gigabytes(total)} GB pulled, {gigabytes(unpacked)} GB unpacked"
        if unpacking:
            text += f" (at one layer for {unpacking} s)"
        return f"{text}, {rate / 1e6:.0f} MB/s" if rate > 0 else text


def error_of(event: Mapping[str, Any]) -> str:
    """The engine's error when it gives up, else empty. `error` is the older key."""
    return str((event.get("errorDetail") or {}).get("message") or event.get("error") or "")


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f}" if count >= 1e9 or not count else f"{count / 1e9:.3f}"


def holds(digests: Iterable[str], digest: str) -> bool:
    """Whether one of an image's RepoDigests (name@sha256:…) is `digest`."""
    return any(entry.rpartition("@")[2] == digest for entry in digests)


def refusal(said: str) -> PullError:
    """What the engine's error means, and what to do."""
    text = said.strip()
    lower = text.lower()
    for words, do, again in REFUSALS:
        if re.search(words, lower):
            return PullError(f"expected the engine to pull the image, seen: {text}; {do}", again)
    return PullError(
        f"expected the engine to pull the image, seen: {text}; see journalctl -u docker on the host", True
    )


# From the particular to the general: an engine puts several of these into one message.
REFUSALS = (
    (
        r"no space left on device",
        "make room where Docker keeps its images (docker system df, playbook prune) and run again",
        False,
    ),
    (
        r"verification failed|unexpected commit digest|invalid checksum",
        "a registry gave other bytes than were locked, and the engine refused them: run site.yml without --limit, which verifies "
        "the fleet's registry, and mend or take away any other registry or mirror",
        False,
    ),
    (
        r"toomanyrequests|too many requests|rate limit",
        "Docker Hub limits pulls by address: wait, log in, or let one host fetch for all (spark_registry_host)",
        False,
    ),
    (
        r"no matching manifest|does not match the specified platform|no match for platform",
        "lock an image that was built for this host",
        False,
    ),
    (
        r"incorrect repository format|invalid reference format|invalid repository name",
        "correct image.reference in the recipe, of which this registry takes no such path, and lock again",
        False,
    ),
    (
        r"pull access denied|requested access to the resource is denied|access denied|access forbidden|unauthorized"
        r"|authentication required|no basic auth credentials|403 forbidden|(?:^|: |\n)denied$",
        "correct the name, log the engine in (docker login), or name a mirror that has the image",
        False,
    ),
    (
        r"manifest unknown|name unknown|repository name not known|not found$",
        "no registry that the engine asks has this digest: check the lock, and whether it was deleted upstream",
        False,
    ),
)
