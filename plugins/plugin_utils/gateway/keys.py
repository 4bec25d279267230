# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a gateway: whose they are, what they may, and their hashes. A key itself goes no further than this file. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import ascii_lowercase, digits
from typing import Any

from .refusal import GatewayError, known, name, whole

BITS = 128
"""Least strength of a key. Its hash is compared without salt or repetition, as is right for what cannot be guessed."""
DISTINCT = 8
"""Characters that a key has at least. A random one of 128 bits practically never has fewer."""
GENERATE = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
HASH = re.compile(r"[0-9a-f]{64}")
KEY = re.compile(r"[!-~]+")
_ALPHABETS = tuple(
    frozenset(letters)
    for lower in (digits, f"{digits}abcdef", ascii_lowercase, digits + ascii_lowercase)
    for letters in (lower, lower.upper())
)
_OPTIONS = ("name", "user", "key", "sha256", "concurrent", "requests_per_minute")
MOST = 1_000_000


@dataclass(frozen=True)
class Key:
    name: str
    user: str  # whose conversations return to the same server; empty for many people's
    sha256: str  # hexadecimal, lower case
    concurrent: int  # requests at once
    requests_per_minute: int


def bits(key: str) -> float:
    """The strength of a key if it was drawn at random from the smallest usual alphabet that has all its characters."""
    drawn = key.removeprefix("sk-")
    size = next((len(letters) for letters in _ALPHABETS if letters.issuperset(drawn)), 64)
    return len(drawn) * math.log2(size)


def _hash(given: Mapping[str, Any], where: str) -> str:
    if ("key" in given) == ("sha256" in given):
        raise GatewayError(
            where, "either key or sha256", "both" if "key" in given else "neither", "give one of them"
        )
    if "sha256" in given:
        digest = given["sha256"]
        if not isinstance(digest, str) or not HASH.fullmatch(digest.lower()):
            raise GatewayError(
                where,
                "sha256 as 64 hexadecimal digits",
                "something else",
                'take what this prints: printf %s "$KEY" | sha256sum',
            )
        return digest.lower()
    key = given["key"]
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise GatewayError(where, "a key of printable ASCII without spaces", "something else", GENERATE)
    if bits(key) < BITS or len(set(key)) < DISTINCT:
        raise GatewayError(
            where, f"a random key of at least {BITS} bits", f"one of {bits(key):.0f} bits at most", GENERATE
        )
    return hashlib.sha256(key.encode()).hexdigest()


def keys(given: Iterable[Any], concurrent: Any, requests_per_minute: Any) -> tuple[Key, ...]:
    """The keys of an inventory, with their limits or else these. No message shows one.

    :raises GatewayError: one is no key, or two have one name or are one
    """
    found: dict[str, Key] = {}
    by_hash: dict[str, str] = {}
    for number, entry in enumerate(given, 1):
        where = f"gateway_keys, entry {number}"
        options = known(entry, where, _OPTIONS)
        who = name(options.get("name"), f"{where}, name")
        where = f"gateway_keys, {who}"
        key = Key(
            name=who,
            user=name(options["user"], f"{where}, user") if options.get("user") else "",
            sha256=_hash(options, where),
            concurrent=whole(options.get("concurrent", concurrent), f"{where}, concurrent", 1, MOST),
            requests_per_minute=whole(
                options.get("requests_per_minute", requests_per_minute),
                f"{where}, requests_per_minute",
                1,
                MOST,
            ),
        )
        if who in found:
            raise GatewayError(
                where, "one key of each name", "two", "rename one: the log knows a key by its name"
            )
        if key.sha256 in by_hash:
            raise GatewayError(where, "a key of its own", f"that of {by_hash[key.sha256]}", GENERATE)
        found[who], by_hash[key.sha256] = key, who
    if not found:
        raise GatewayError(
            "gateway_keys", "at least one key", "none", f"{GENERATE}, and put it into the vault"
        )
    return tuple(found.values())
