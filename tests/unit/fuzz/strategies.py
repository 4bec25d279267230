# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hostile or broken program may send in place of a good answer, made from that answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from conftest import ROOT
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

# What it keeps of constants in the code, among the other caches.
set_hypothesis_home_dir(ROOT / ".cache/hypothesis")

Path = tuple[Any, ...]

_WORDS = [
    "", "\x00", "\x1b[2J", "²", "٣", "..", "../x", "/etc", "/m:rw", "a" * 300, "-1", "0x_", "1e400", "NaN", "a=b", "=", ":", "@",
    "http://[x", "sha256:x", "sha256:" + "0" * 64, "\ud800", "\udcff", "${x}", "{{ x }}", "\u202e", "2026-99-99T99:99:99Z", "\r\n",
]  # fmt: skip
TEXT = st.one_of(st.sampled_from(_WORDS), st.text(max_size=6))
_NUMBERS = st.one_of(
    st.integers(-2, 20),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**30, 0.5, -1.5, 1e308, float("inf"), float("nan")]),
)
_LEAVES = st.one_of(st.none(), st.booleans(), _NUMBERS, TEXT)
JUNK = st.one_of(
    _LEAVES,
    st.lists(_LEAVES, max_size=3),
    st.dictionaries(TEXT, _LEAVES, max_size=2),
    st.sampled_from([[[[]]], [{}], [[1]], {"": {"": {}}}, ["x"] * 40]),
)
NO_JSON = [
    "", " ", "[", "null", "5", "[]", "{}", '"x"', "1" * 5000, "-", "NaN", "[1e400]", "\ufeff{}", '{"a":1,"a":2}', '"\\ud800"', "\udcff",
    "[" * 20_000, '{"a":' * 20_000, "[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500,
]  # fmt: skip


def _places(value: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*path, index))


def _change(value: Any, path: Path, change: Callable[[Any, Any], None]) -> None:
    for key in path[:-1]:
        value = value[key]
    change(value, path[-1])


@st.composite
def trees(draw: st.DrawFn, good: Any) -> Any:
    """A good value in which up to three parts are something else, gone, or under another name."""
    value = copy.deepcopy(good)
    for _each in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(_places(value))))
        junk = copy.deepcopy(draw(JUNK))  # what is drawn from a list is that very object
        how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if not path:
            if how == "replace" and draw(st.booleans()):
                return junk
        elif how == "replace":
            _change(value, path, partial(_put, junk))
        elif how == "remove":
            _change(value, path, _remove)
        else:
            _change(value, path, partial(_add, draw(TEXT), junk))
    return value


def _put(junk: Any, there: Any, key: Any) -> None:
    there[key] = junk


def _remove(there: Any, key: Any) -> None:
    del there[key]


def _add(name: str, junk: Any, there: Any, _key: Any) -> None:
    if isinstance(there, dict):
        there[name] = junk
    else:
        there.append(junk)


def json_texts(good: Any) -> st.SearchStrategy[str]:
    """Texts that are mostly JSON of nearly the right shape."""
    whole = json.dumps(good)
    near = trees(good).map(json.dumps)
    return st.one_of(near, near, near, cut(whole), st.sampled_from(NO_JSON), TEXT)


def json_bytes(good: Any) -> st.SearchStrategy[bytes]:
    return st.one_of(
        json_texts(good).map(lambda text: text.encode(errors="surrogatepass")), st.binary(max_size=8)
    )


def cut(text: str) -> st.SearchStrategy[str]:
    """The text up to somewhere, as of a connection that broke or a disk that was full."""
    return st.integers(0, len(text)).map(lambda end: text[:end])


_BITS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "\t",
            "²",
            "٣",
            "9" * 5000,
            ".",
            "...",
            "-",
            "nan",
            "inf",
            "%",
            "\x00",
            "\\",
            '"',
            "{",
            "}",
            "[",
            ":",
            "/",
        ]
    ),
    st.text(max_size=4),
)


@st.composite
def texts(draw: st.DrawFn, good: str) -> str:
    """A good text in which up to three stretches are something else."""
    text = good
    for _each in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 8)))
        text = text[:begin] + draw(_BITS) + text[end:]
    return text


def lines(good: Sequence[str]) -> st.SearchStrategy[list[str]]:
    """Lines of those that are known, changed ones, and others, in any order and number."""
    one = st.one_of(*(texts(line) for line in good), TEXT)
    return st.lists(one, max_size=6)


def documents(good: str) -> st.SearchStrategy[str]:
    """A text of lines: changed somewhere, cut off, or lines of it in any order."""
    return st.one_of(texts(good), cut(good), lines(good.splitlines()).map("\n".join))
