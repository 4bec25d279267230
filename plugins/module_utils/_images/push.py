# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Docker engine says while it pushes: a line for a person, the digest at the end, and what its refusals mean. Pure.

The stream of POST /images/{name}/push has one object for each step of a layer (`id`), with `status` and, while bytes move,
`progressDetail` {current, total}. It ends with a status `<tag>: digest: sha256:… size: …`. An engine that does not keep its
images in containerd adds {"aux": {"Tag", "Digest", "Size"}}. An engine that has only a part of an index pushes the manifest of
one platform instead: {"aux": {"manifestPushedInsteadOfIndex": true, "originalIndex": {"digest"}, "selectedManifest": {"digest"}}}.
"""

from __future__ import annotations

import re
from typing import Any

from .._common import shape
from .engine import EVENT, error_of, gigabytes
from .oci import DIGEST

_END = re.compile(rf"\S+: digest: ({DIGEST.pattern}) size: \d+")


class PushError(Exception):
    """The engine did not push the image. The text says expected, seen and what to do."""


class Push:
    """How far a push is. Layers that the registry has already do not count."""

    def __init__(self) -> None:
        self._pushed: dict[str, int] = {}
        self.digest = ""
        """Digest of the image in the registry; empty until the push has ended."""
        self.instead = ""
        """Digest of the index, if only its manifest `digest` was pushed; empty if all of the image was."""

    def feed(self, event: Any) -> None:
        """:raises PushError: the engine gives up"""
        if shape.wrong(event, EVENT):
            return
        if said := error_of(event):
            raise refusal(said)
        detail = event.get("progressDetail") or {}
        if event.get("id") and event.get("status") == "Pushing":
            self._pushed[event["id"]] = detail.get("current") or 0
        aux = event.get("aux") or {}
        if aux.get("manifestPushedInsteadOfIndex"):
            self.instead = str((aux.get("originalIndex") or {}).get("digest") or "an index")
        if DIGEST.fullmatch(str(aux.get("Digest"))):
            self.digest = aux["Digest"]
        elif end := _END.fullmatch(str(event.get("status"))):
            self.digest = end[1]

    def line(self) -> str:
        """A line for a person. It cannot tell what is left: the engine packs layers while it sends them."""
        pushed = sum(self._pushed.values())
        return f"image: {gigabytes(pushed)} GB of its layers into the registry" if pushed else ""


def refusal(said: str) -> PushError:
    """What the engine's error means, and what to do."""
    lower = said.lower()
    do = next(
        (do for words, do in REFUSALS if any(word in lower for word in words)), "see journalctl -u docker"
    )
    return PushError(f"expected the engine to push the image, seen: {said.strip()}; {do}")


REFUSALS = (
    (
        ("http: server gave http response to https client",),
        "a registry without TLS has to be among the engine's insecure-registries (prerequisites_daemon_config)",
    ),
    (
        ("unauthorized", "denied", "authentication required"),
        "set image_build_username and image_build_password, or log the engine in (docker login)",
    ),
    (("no space left on device",), "make room where the registry keeps its images and run again"),
)
