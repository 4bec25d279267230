# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python distributions by version and hash, as lines that pip reads (C(--require-hashes)). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"[A-Za-z0-9.!+_]+"
# Matches nothing else that pip would read in such a line: no address, no file, no option.
_LINE = re.compile(
    rf"({_NAME})==({_VERSION})(?: ; [A-Za-z0-9_.'<>=!() ]+)?(?: --hash=sha256:[0-9a-f]{{64}})+"
)
# Name and version of a wheel hold no dash (PEP 427); a build tag between them and the other tags begins with a digit.
_WHEEL = re.compile(rf"([A-Za-z0-9._]+)-({_VERSION})(?:-[0-9][^-]*)?(?:-[^-]+){{3}}\.whl")


def canonical(name: str) -> str:
    """A distribution's name in the form in which names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(lines: Iterable[str]) -> set[str]:
    """The distributions that lines with hashes name.

    :raises ValueError: a line that is anything else
    """
    found = set()
    for line in lines:
        match = _LINE.fullmatch(line)
        if not match:
            raise ValueError(
                f"{line[:120]!r}: expected a version and hashes, as in name==1.2 --hash=sha256:…, and nothing else"
            )
        found.add(canonical(match[1]))
    return found


def of_wheels(wheels: Mapping[str, str]) -> list[str]:
    """One line for each distribution that has wheels.

    :param wheels: {file name: sha256}
    :raises ValueError: a name that no wheel has
    """
    hashes: dict[tuple[str, str], list[str]] = {}
    for file, sha256 in wheels.items():
        match = _WHEEL.fullmatch(file)
        if not match:
            raise ValueError(f"{file!r}: expected the name of a wheel, as in name-1.2-py3-none-any.whl")
        hashes.setdefault((canonical(match[1]), match[2]), []).append(sha256)
    return [
        f"{name}=={version}" + "".join(f" --hash=sha256:{sha256}" for sha256 in sorted(found))
        for (name, version), found in sorted(hashes.items())
    ]
