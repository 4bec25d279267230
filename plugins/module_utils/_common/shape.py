# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an answer has the shape that its reader expects. Pure.

A shape is a type (`int` without bool, `float` with int), a list with one shape for all items, a mapping of keys to shapes (other
keys may be there too), a mapping of `str` to one shape for all values, or :class:`Maybe` of a shape, which may be absent or null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
}


@dataclass(frozen=True)
class Maybe:
    shape: Any


def wrong(value: Any, shape: Any, where: str = "") -> str:
    """The place where a value has another shape, with what was expected and seen there; empty for a good value."""
    if isinstance(shape, Maybe):
        return "" if value is None else wrong(value, shape.shape, where)
    kind = shape if isinstance(shape, type) else type(shape)
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        return f"{where or 'the answer'}: expected {_NAMES[kind]}, seen {value!r:.60}"
    there: Any = value
    inner: list[tuple[Any, Any, str]] = []
    if isinstance(shape, list):
        inner = [(item, shape[0], f"{where}[{index}]") for index, item in enumerate(there)]
    elif isinstance(shape, dict) and str in shape:
        inner = [(item, shape[str], _below(where, key)) for key, item in there.items()]
    elif isinstance(shape, dict):
        inner = [(there.get(key), part, _below(where, key)) for key, part in shape.items()]
    return next((said for each in inner if (said := wrong(*each))), "")


def _below(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
