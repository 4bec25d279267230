# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text of others, made safe for a terminal: characters that move the cursor, hide text or reverse it are shown, not obeyed. Pure."""

from __future__ import annotations

import re

# Controls except line feed and tab, C1 included; direction marks and isolates; line separators; joiners that show nothing;
# surrogate halves, which no terminal accepts.
_ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """`text` with the characters that a terminal would obey escaped, as Python writes them."""
    return _ACTS.sub(lambda match: match[0].encode("unicode_escape", "backslashreplace").decode(), text)


def one_line(text: str) -> str:
    """The same without line feeds and tabs: a cell of a table, a line of progress."""
    return printable(" ".join(text.split()))
