# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A safetensors file as bytes."""

from __future__ import annotations

import json
import struct


def packed(header, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, begin, end, dtype="BF16"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = packed(
    {"__metadata__": {"format": "pt"}, "a": entry([2, 3], 0, 12), "b": entry([4], 12, 16, "F8_E4M3")},
    bytes(16),
)
