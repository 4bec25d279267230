# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory asks of a gateway and cannot have, and the checks that several of its parts share. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from ...module_utils._common.spelling import nearest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""Of what HAProxy, its log or its map files name. None of it separates or quotes there."""


class GatewayError(ValueError):
    """An input that no gateway is made of; says what was expected, what was seen, and what to do."""

    def __init__(self, where: str, expected: str, seen: object, do: str) -> None:
        super().__init__(f"{where}: expected {expected}, seen: {seen}; do: {do}")


def name(value: Any, where: str) -> str:
    """:raises GatewayError: it is no name"""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise GatewayError(
            where, "a name of at most 64 letters, digits and . _ @ -", f"{value!r:.80}", "rename it"
        )
    return value


def address(value: Any, where: str, do: str) -> str:
    """An IP address, which a gateway need not look up when it starts.

    :raises GatewayError: it is none
    """
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise GatewayError(where, "an IP address", f"{value!r:.80}", do) from None


def whole(value: Any, where: str, least: int, most: int) -> int:
    """:raises GatewayError: it is no whole number between the two"""
    number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else value
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise GatewayError(
            where, f"a whole number from {least} to {most}", f"{value!r:.80}", "correct the number"
        )
    return number


def known(given: Any, where: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    """A mapping with none but these names.

    :raises GatewayError: it is none, or has others
    """
    if not isinstance(given, Mapping):
        raise GatewayError(
            where, f"a mapping of {', '.join(names)}", type(given).__name__, "write it as a mapping"
        )
    for each in given:
        if each not in names:
            close = nearest(str(each), names)
            raise GatewayError(
                where,
                f"only {', '.join(names)}",
                f"{each!r:.80}",
                f"write {close}" if close else "take it out",
            )
    return given
