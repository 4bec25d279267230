# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an image is on this host, and in the ledger of images that this collection brought."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from .._common import files
from .._common.paths import ledger_path
from . import engine, ledger

try:
    import docker.errors
except ImportError:
    DOCKER_IMPORT_ERROR: str | None = traceback.format_exc()
else:
    DOCKER_IMPORT_ERROR = None


def present(client: Any, image: str, digest: str) -> str:
    """The ID of the image on this host; empty when it is not there."""
    try:
        found = client.images.get(image)
    except docker.errors.ImageNotFound:
        return ""
    return str(found.id) if engine.holds(found.attrs.get("RepoDigests") or [], digest) else ""


def noted(state_dir: str | None, image: str, *, write: bool) -> bool:
    """Note the image in the ledger. True when it was not in there.

    :raises LedgerError: there is a ledger, and it cannot be used
    :raises OSError: it cannot be written
    """
    if not state_dir:
        return False
    path = Path(ledger_path(state_dir))
    images = ledger.parse(_text(path))
    if image in images:
        return False
    if write:
        files.write(path, ledger.render([*images, image]).encode())
    return True


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ledger.LedgerError(f"expected a ledger that can be read, seen {error}") from None
