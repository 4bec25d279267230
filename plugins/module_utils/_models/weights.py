# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model's files say of themselves: the headers of safetensors, and the index that places the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Union

from .._common import json_text

HEADER_LIMIT = 100_000_000
DIMENSIONS = 16
"""More dimensions than any tensor has. Computing their product takes quadratic time in their number."""
LARGEST = 2**63 - 1
DTYPE_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 8),
    "F4": 4,
}
INDEX = "model.safetensors.index.json"
"""Of the files beside the index, vLLM loads only those that it names."""
INDEXES = (INDEX, "consolidated.safetensors.index.json")


@dataclass(frozen=True)
class Problem:
    """One reason not to serve: where, what was expected, what was seen, what to do."""

    where: str
    expected: str
    seen: str
    do: str

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, seen {self.seen}; {self.do}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Unseen:
    """What vLLM may serve and this collection cannot judge."""

    where: str
    because: str

    def __str__(self) -> str:
        return f"{self.where}: not looked at, because {self.because}"


Finding = Union[Problem, Unseen]  # noqa: UP007  pylint reads this file for a Python without the operator


@dataclass(frozen=True)
class WeightFile:
    """The beginning of a safetensors file: `size` of the whole file, `head` its first 8 bytes and header."""

    size: int
    head: bytes


@dataclass(frozen=True)
class Model:
    """What one snapshot says about itself. `name` is its part in the pair, ``body`` or ``draft``."""

    name: str
    config: bytes | None
    """None: the repository has another layout, which vLLM reads."""
    indexes: Mapping[str, bytes]
    weights: Mapping[str, WeightFile]
    others: tuple[str, ...] = ()
    """Files of weights in another format."""


Tensors = dict[str, tuple[str, list[int]]]
"""{name: (dtype, shape)}"""

DAMAGED = "the file is damaged or was cut short: verify the snapshot with verify full"


def read_weights(model: Model) -> tuple[Tensors, Tensors, list[Finding]]:
    """The tensors that vLLM loads, the tensors in files that the index leaves out, and what is wrong with the files."""
    findings: list[Finding] = []
    by_file: dict[str, Tensors] = {}
    if not model.weights and model.others:
        findings.append(Unseen(f"{model.name} weights", f"{', '.join(model.others)} are no safetensors"))
    elif not model.weights:
        do = "is this a model repository with safetensors weights?"
        findings.append(Problem(f"{model.name} weights", "*.safetensors files", "none", do))
    for name, file in model.weights.items():
        by_file[name], found = read_header(f"{model.name} {name}", file)
        findings += found
    loaded = set(by_file)
    for index, text in model.indexes.items():
        try:
            placed = _placed(text, index)
        except ValueError as error:
            where = f"{model.name} {index}"
            findings.append(Problem(where, "a weight_map of {tensor: file}", f"{error}", DAMAGED))
            continue
        findings += _check_index(f"{model.name} {index}", placed, by_file)
        if index == INDEX:
            loaded &= set(placed)
    parts: tuple[Tensors, Tensors] = ({}, {})
    for name, tensors in by_file.items():
        parts[name not in loaded].update(tensors)
    return *parts, findings


def read_header(where: str, file: WeightFile) -> tuple[Tensors, list[Problem]]:
    """A safetensors file: 8 bytes of header length N, N bytes of JSON, data without gap or overlap to its end."""
    length = int.from_bytes(file.head[:8], "little")
    if len(file.head) < 8 or length > HEADER_LIMIT or 8 + length > file.size:
        seen = (
            f"a header of {length} bytes in a file of {file.size}"
            if len(file.head) >= 8
            else f"{file.size} bytes"
        )
        return {}, [Problem(where, "a safetensors header inside the file", seen, DAMAGED)]
    try:
        header = json_text.read(file.head[8 : 8 + length], where, limit=HEADER_LIMIT)
        entries = sorted(
            (
                (_whole(begin), _whole(end), name, str(entry["dtype"]), _shape(entry["shape"]))
                for name, entry in header.items()
                if name != "__metadata__"
                for begin, end in [entry["data_offsets"]]
            ),
        )
    except json_text.JsonError as error:
        return {}, [Problem(where, "a safetensors header", error.reason, DAMAGED)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        seen = f"{type(error).__name__}: {error}"[:200]
        return {}, [Problem(where, "a safetensors header", seen, DAMAGED)]
    problems = []
    position = 0
    for begin, end, name, dtype, shape in entries:
        bits = DTYPE_BITS.get(dtype)
        size = (math.prod(shape) * bits + 7) // 8 if bits else end - begin
        if begin != position or end - begin != size:
            expected = f"bytes {position} to {position + size}"
            problems.append(Problem(f"{where} {name}", expected, f"{begin} to {end}", DAMAGED))
            break
        position = end
    else:
        if 8 + length + position != file.size:
            problems.append(Problem(where, f"{8 + length + position} bytes", f"{file.size}", DAMAGED))
    return {name: (dtype, shape) for _start, _end, name, dtype, shape in entries}, problems


def _shape(given: Any) -> list[int]:
    if not isinstance(given, list) or len(given) > DIMENSIONS:
        raise ValueError(f"expected a shape of at most {DIMENSIONS} sizes, seen {given!r:.60}")
    return [_whole(size) for size in given]


def _whole(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= LARGEST:
        raise ValueError(f"expected a whole number from 0 to {LARGEST}, seen {given!r:.60}")
    return given


def _placed(text: bytes, name: str) -> dict[str, list[str]]:
    """{file: tensors} of an index.

    :raises ValueError: it is none
    """
    content = json_text.read(text, name, nulls=False)
    placed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(placed, dict) or not all(isinstance(file, str) for file in placed.values()):
        raise ValueError(f"{placed!r:.60}")
    files: dict[str, list[str]] = {}
    for tensor, file in placed.items():
        files.setdefault(file, []).append(tensor)
    return files


def _check_index(
    where: str, placed: Mapping[str, list[str]], by_file: Mapping[str, Tensors]
) -> Iterator[Problem]:
    for name, tensors in sorted(placed.items()):
        if name not in by_file:
            yield Problem(where, f"{name}, which {len(tensors)} tensors are in", "no such file", DAMAGED)
        elif missing := sorted(set(tensors) - set(by_file[name])):
            yield Problem(where, f"{len(tensors)} tensors in {name}", missing_of(missing), DAMAGED)


def missing_of(names: list[str]) -> str:
    return f"{len(names)} of them missing ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
