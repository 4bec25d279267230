# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a server keeps what it compiles, so that the next start of the same image need not compile it again. Pure.

The next server runs the compiled code. So each image has its own caches, by its digest, and no user of the host reaches them: a container
can leave anything there, such as a program that runs as its owner, root.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...module_utils._common.paths import cache_root, compiled_path
from ...module_utils._vllm.caches import targets


class Cache(NamedTuple):
    """One directory of the host, and its place in the container."""

    path: str
    target: str


def of_image(image: str, given: Mapping[str, str | bool], store: str) -> list[Cache]:
    """The caches of an image.

    :param image: by digest
    :param given: as a recipe has them, ``image.caches``
    """
    digest = image.partition("@")[2]
    return [Cache(compiled_path(store, digest, name), target) for name, target in targets(given).items()]


def directories(caches: list[Cache], store: str) -> list[dict[str, str]]:
    """The directories to make before the container starts, ``{path, mode}``, outer ones first.

    The image may run as any user, so everybody inside the container can write to each cache. On the host nobody reaches it.
    """
    inner = [{"path": cache.path, "mode": "0777"} for cache in caches]
    return [{"path": cache_root(store), "mode": "0700"}, *inner]
