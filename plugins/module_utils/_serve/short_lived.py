# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container that answers one question and is removed: its limits, its time, and its removal in every case.

The image is somebody else's. Its code may do nothing to the host but answer, and the caller must check the answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LABEL = "sparkfleet.vllm.probe"
STARTING = 30
"""Seconds to start the container and its program, on top of the time for the question."""
LIMITS: Mapping[str, Any] = {
    "network_mode": "none",
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "pids_limit": 4096,
    "log_config": {"type": "json-file", "config": {"max-size": "10m", "max-file": "1"}},
}


@dataclass(frozen=True)
class Ended:
    """`code` is None if the container was stopped for lack of time. `log` is everything that it printed, `stdout` part of it."""

    code: int | None
    out_of_memory: bool
    stdout: bytes
    log: bytes


def limited(options: Mapping[str, Any], memory: str) -> dict[str, Any]:
    """Options of docker-py with all limits. `options` override LIMITS. Swap counts as memory."""
    return {**LIMITS, **options, "mem_limit": memory, "memswap_limit": memory}


def remove_leftovers(client: Any, of: str) -> None:
    """Remove containers of killed runs, and those that the engine could not start. Prune would keep their image."""
    for left in client.containers.list(all=True, filters={"label": f"{LABEL}={of}"}):
        left.remove(force=True)


def run(client: Any, of: str, options: Mapping[str, Any], memory: str, seconds: float) -> Ended:
    """Run one to its end, or until its time is over.

    :param of: who asks, for the container's label
    :param options: of docker-py
    :param memory: as docker-py takes it
    :raises DockerException: the engine does not run it; RequestException: it does not answer
    """
    # Not at the top of the file: these imports take as long as the whole of a module that has nothing to ask.
    import docker.errors
    import requests

    remove_leftovers(client, of)
    container = client.containers.create(**limited({**options, "labels": {LABEL: of}}, memory))
    try:
        container.start()
        try:
            code = container.wait(timeout=seconds + STARTING)["StatusCode"]
        except requests.exceptions.RequestException:
            code = None
        container.reload()
        out_of_memory = bool(container.attrs["State"].get("OOMKilled"))
        return Ended(code, out_of_memory, container.logs(stderr=False), container.logs())
    finally:
        # If this fails, the next run removes it.
        with contextlib.suppress(docker.errors.DockerException, requests.exceptions.RequestException):
            container.remove(force=True)
