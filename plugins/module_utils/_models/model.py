# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a model can be judged before it is served, read from its snapshot: configs and headers, no weights."""

from __future__ import annotations

from pathlib import Path

from .weights import HEADER_LIMIT, INDEX, Model, WeightFile

SUFFIX = ".safetensors"


def read(name: str, folder: Path) -> Model:
    """:raises OSError: no config.json, or a file that cannot be read"""
    index = folder / INDEX
    weights = {}
    for path in folder.iterdir():
        if path.name.endswith(SUFFIX) and path.is_file():
            with path.open("rb") as file:
                head = file.read(8)
                head += file.read(min(int.from_bytes(head, "little"), HEADER_LIMIT))
            weights[path.name] = WeightFile(path.stat().st_size, head)
    return Model(
        name,
        (folder / "config.json").read_text(encoding="utf-8", errors="replace"),
        index.read_text(encoding="utf-8", errors="replace") if index.exists() else None,
        weights,
    )
