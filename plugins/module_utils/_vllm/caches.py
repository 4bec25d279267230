# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories where vLLM, and the compilers that it uses, keep what they compile. Pure."""

from __future__ import annotations

from collections.abc import Mapping

TARGETS: Mapping[str, str] = {
    "vllm": "/root/.cache/vllm",
    "flashinfer": "/root/.cache/flashinfer",
    "triton": "/root/.triton",
    "tilelang": "/root/.tilelang",
}
"""{compiler: its directory, where it runs as root}"""


def targets(given: Mapping[str, str | bool]) -> dict[str, str]:
    """The directories to keep, by name.

    :param given: an image's directories, besides or in place of the usual ones; false removes one
    """
    return {name: target for name, target in {**TARGETS, **given}.items() if isinstance(target, str)}
