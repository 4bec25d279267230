# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text of others on the terminal of an operator: what would move the cursor, hide or turn around text is shown, not done. Pure."""

from __future__ import annotations

import re

# Controls but line feed and tab, C1 among them; marks of direction and isolates; separators of lines; joiners that show nothing;
# halves of a pair, which no terminal can be given.
_ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """`text` with the signs in it that a terminal would act on written out, as Python writes them."""
    return _ACTS.sub(lambda match: match[0].encode("unicode_escape", "backslashreplace").decode(), text)


def one_line(text: str) -> str:
    """The same without line feeds and tabs: a cell of a table, a line of progress."""
    return printable(" ".join(text.split()))
