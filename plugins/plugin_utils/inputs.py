# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs as they reach a run. C(-e name=value) and the surveys of a controller have only texts, where an inventory has lists. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def as_list(value: str | Sequence[Any]) -> list[Any]:
    """A list, even if it came as a text with commas, as Ansible's argument specs allow."""
    return value.split(",") if isinstance(value, str) else list(value)


def answered(options: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """The options to validate: without optional ones that were left blank, as null or as an empty text.

    :param options: of an argument spec
    :param values: their values, in the same order
    """
    return {
        name: option
        for (name, option), value in zip(options.items(), values, strict=True)
        if option.get("required") or (value is not None and value != "")
    }
