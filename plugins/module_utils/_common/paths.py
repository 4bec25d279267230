# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things live on a host, in the content-addressed store and in the state directory. The one home of their layout."""

from __future__ import annotations

import posixpath


def snapshot_path(store: str, repository: str, commit: str) -> str:
    """Directory of one verified snapshot: <store>/models/<org>--<name>/<commit>."""
    return posixpath.join(store, "models", repository.replace("/", "--"), commit)


def patch_path(store: str, sha256: str, name: str) -> str:
    """File of one patch: <store>/patches/<sha256>/<name>."""
    return posixpath.join(store, "patches", sha256, name)


def supervisor_path(store: str, sha256: str) -> str:
    """Folder of one program that keeps the members of a unit together: <store>/supervisor/<sha256>."""
    return posixpath.join(store, "supervisor", sha256)


def cache_root(store: str) -> str:
    """Where servers and images leave data for the next of their kind: <store>/cache. On the host, only root enters it."""
    return posixpath.join(store, "cache")


def compiled_path(store: str, digest: str, name: str) -> str:
    """What the servers of one image have compiled, per compiler: <store>/cache/compiled/<digest>/<name>."""
    return posixpath.join(cache_root(store), "compiled", digest.removeprefix("sha256:"), name)


def image_answer_path(store: str, image_id: str, name: str) -> str:
    """What an image answered to a question: <store>/cache/images/<digest>/<name>.json."""
    return posixpath.join(cache_root(store), "images", image_id.removeprefix("sha256:"), f"{name}.json")


def unit_path(state_dir: str) -> str:
    """What the container of a unit's member shares with its host, key and status: <state>/unit. Only root enters it."""
    return posixpath.join(state_dir, "unit")


def ledger_path(state_dir: str) -> str:
    """The images that this collection brought to a host: <state>/images.json."""
    return posixpath.join(state_dir, "images.json")
