# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON that others write. Only this file reads it, limited in bytes and in depth.

These rules hold for every reader. A byte order mark is not part of the text. If a key is given twice, the last value counts, as
in Docker, vLLM and the Hub, so that all see the same one. Half a surrogate pair, which no file and no terminal takes, becomes
U+FFFD, as in Docker. Numbers beyond what a double or 64 bits hold are refused, unless a reader wants them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LIMIT = 32 * 1024 * 1024
"""Bytes. Texts that are read here have some kilobytes. The largest describes a snapshot of 50,000 files and has 10 MB."""
DEEPEST = 64
"""Levels of nesting. What is read here has a dozen. Code that walks a value takes several calls for each."""
_LARGEST = 2**64
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""A whole pair, half of one (group 1), or any other."""


class JsonError(ValueError):
    """The text is not JSON, or larger or deeper than anybody should send. The message names the file; `reason` does not."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be read: {reason}")
        self.reason = reason


def read(
    text: bytes | str, name: str, *, limit: int = LIMIT, nulls: bool = True, any_number: bool = False
) -> Any:
    """The value of a file or an answer.

    :param name: where the text comes from, for the message
    :param nulls: false: a key whose value is null is absent
    :param any_number: also Infinity, NaN and numbers of any size, which Python writes and reads
    :raises JsonError: it cannot be read, whatever the reason
    """
    numbers: dict[str, Any] = {} if any_number else _NUMBERS
    keep = None if nulls else _without_null
    try:
        content = text.encode() if isinstance(text, str) else text
        if len(content) > limit:
            raise ValueError(f"more than {limit} bytes")
        if _SURROGATE.search(content):
            content = _ESCAPE.sub(lambda escape: b"\\ufffd" if escape[1] else escape[0], content)
        value = json.loads(content.decode("utf-8-sig"), object_pairs_hook=keep, **numbers)
        if _deep(value):
            raise ValueError(f"nested deeper than {DEEPEST} levels")
    except json.JSONDecodeError as error:
        raise JsonError(name, f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise JsonError(name, f"nested deeper than {DEEPEST} levels") from None
    except ValueError as error:
        raise JsonError(name, str(error)) from None
    return value


def read_file(path: Path, *, limit: int = LIMIT) -> Any:
    """The value of a file.

    :raises JsonError: the file is there and cannot be read
    :raises OSError: as of any file
    """
    with path.open("rb") as file:
        return read(file.read(limit + 1), str(path), limit=limit)


def _without_null(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if value is not None}


def _whole(digits: str) -> int:
    value = int(digits)
    if abs(value) > _LARGEST:
        raise ValueError(f"a number of {len(digits)} digits")
    return value


def _fraction(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits:.40}")
    return value


_NUMBERS = {"parse_int": _whole, "parse_float": _fraction, "parse_constant": _fraction}


def _deep(value: Any) -> bool:
    """Whether the value is nested deeper than :data:`DEEPEST`."""
    level = _structures([value])
    for _each in range(DEEPEST):
        level = _structures(
            inner for one in level for inner in (one.values() if isinstance(one, dict) else one)
        )
    return bool(level)


def _structures(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]
