# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inputs of the role vllm_serve by their short names. The guard judges them before it asks a host, and the record is made of them.

``__vllm_serve_inputs`` in ``roles/vllm_serve/vars/main.yml`` puts them together. The role declares their types;
:mod:`_recipe.recipe` declares those of a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class Inputs(TypedDict):
    recipe: str
    """Its name."""
    name: str
    """Of the container."""
    image: str
    """By digest."""
    models: Mapping[str, Mapping[str, Any]]
    """By role, each with its ``mount``; one without a ``path`` lies where its commit does in the store."""
    locked_models: Mapping[str, Mapping[str, Any]]
    """Those of the lock. May be left out where each model has a path."""
    store: str
    patches: Sequence[Mapping[str, Any]]
    """Placed ones: ``host_path``, ``target``, ``mount``, ``md5``, ``sha256``."""

    entrypoint: Sequence[str]
    """Empty for the image's."""
    caches: Mapping[str, str | bool]
    mounts: Sequence[Mapping[str, str]]
    """``path``, in the store or absolute, and ``mount``."""
    allowed_paths: Sequence[str]
    """Where `mounts` may lie besides the store."""
    devices: Sequence[str]
    """Paths of the host."""
    allowed_devices: Sequence[str]
    ulimits: Mapping[str, int]
    arguments: Mapping[str, Any]
    extra_arguments: Mapping[str, Any]
    """The inventory's, on top of `arguments`."""
    environment: Mapping[str, Any]
    host_environment: Mapping[str, str]
    """Names of `host_facts` by variable; `environment` wins."""
    host_facts: Mapping[str, str]

    topology: Mapping[str, int]
    """Of the recipe; empty for one Spark."""
    unit: Mapping[str, Any]
    """What the host is in its unit, as ``unit.members.member`` gives it; empty where it serves alone, or nobody has looked yet."""
    unit_port: int
    """At which the programs that run the servers of a unit meet on its head."""
    master_port: int
    """At which the servers themselves do."""
    state_dir: str

    port: int
    bind: str
    shm_size: str
    security: str
    ipc: str
    """Of the profile `fabric`: private or host."""
    gpus: bool
    log_driver: str
    """Empty for the engine's own settings."""
    log_options: Mapping[str, Any]

    published: Mapping[str, Any]
    """Of the recipe, or empty."""
    measured_depth: int
    """The deepest that was measured to pay here, 0 for none."""
    allow_deeper: bool
    refused: Sequence[Mapping[str, Any]]
    """Of the recipe, or empty."""
    acceptance_floor: float
    minimum_drafts: int
    memory_fraction: float
    memory_minimum_bytes: int | None
