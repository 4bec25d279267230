# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the parts of a model by which it can be judged before it is served: configs and headers of its snapshot, no weights."""

from __future__ import annotations

from pathlib import Path

from .weights import HEADER_LIMIT, INDEXES, Model, WeightFile

SUFFIX = ".safetensors"
OTHER_WEIGHTS = (".bin", ".pt", ".gguf")
"""Suffixes of weights that vLLM serves and this collection cannot look into."""
NO_WEIGHTS = frozenset({"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"})
"""What a trainer leaves beside the weights."""
OWN_LAYOUT = "params.json"
"""Mistral's own config, which vLLM reads where there is no config.json."""


def read(name: str, folder: Path) -> Model:
    """:raises OSError: neither config.json nor its substitute is there, or a file cannot be read"""
    weights = {}
    others = []
    for path in sorted(folder.iterdir()):
        if path.name.endswith(SUFFIX) and path.is_file():
            with path.open("rb") as file:
                head = file.read(8)
                head += file.read(min(int.from_bytes(head, "little"), HEADER_LIMIT))
            weights[path.name] = WeightFile(path.stat().st_size, head)
        elif path.name.endswith(OTHER_WEIGHTS) and path.name not in NO_WEIGHTS:
            others.append(path.name)
    config = folder / "config.json"
    without = not config.exists() and (folder / OWN_LAYOUT).exists()
    return Model(
        name,
        None if without else config.read_bytes(),
        {index: (folder / index).read_bytes() for index in INDEXES if (folder / index).exists()},
        weights,
        tuple(others),
    )
