# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where vLLM, and what compiles for it, keep what they compile. Pure."""

from __future__ import annotations

from collections.abc import Mapping

TARGETS: Mapping[str, str] = {
    "vllm": "/root/.cache/vllm",
    "flashinfer": "/root/.cache/flashinfer",
    "triton": "/root/.triton",
    "tilelang": "/root/.tilelang",
}
"""By what compiles, its directory where it runs as root."""


def targets(given: Mapping[str, str | bool]) -> dict[str, str]:
    """The directories that are kept, by name.

    :param given: those of an image, besides or in place of the usual ones; false takes one away
    """
    return {name: target for name, target in {**TARGETS, **given}.items() if isinstance(target, str)}
