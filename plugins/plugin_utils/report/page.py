# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages of the collection have in common: one file that loads nothing, light and dark, for a phone and for paper. Pure.

A sign and a word stand beside every colour, and everything that is not markup is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--text:#1b1f24;--soft:#57606a;--line:#d5dae1;
--good:#1a6b3c;--good-bg:#e3f4e9;--bad:#a40e26;--bad-bg:#fde7ea;--warning:#7a4b00;--warning-bg:#fff1d1;
--unknown:#4a5362;--unknown-bg:#e8ebf0}
@media(prefers-color-scheme:dark){:root{--page:#0e1116;--card:#171b22;--text:#e6e9ee;--soft:#9aa4b2;--line:#2d343f;
--good:#7ee2a3;--good-bg:#12301f;--bad:#ff9aa8;--bad-bg:#3d141b;--warning:#f5c86b;--warning-bg:#3a2a0a;
--unknown:#b6bfcc;--unknown-bg:#252b35}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:76rem;margin:0 auto;padding:2rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem}
h2{font-size:1.2rem;margin:2.5rem 0 .75rem}
h3{font-size:1rem;margin:0;display:flex;gap:.75rem;align-items:center;flex-wrap:wrap}
p{margin:.25rem 0}.soft{color:var(--soft)}
code,.mono{font:.875em/1.45 ui-monospace,"Cascadia Mono",Menlo,Consolas,monospace;overflow-wrap:anywhere}
.chips{display:flex;gap:.5rem;flex-wrap:wrap;margin:1rem 0 0;padding:0;list-style:none}
.state{display:inline-flex;gap:.4em;align-items:baseline;padding:.1rem .55rem;border-radius:1rem;font-size:.875rem;
white-space:nowrap;border:1px solid currentColor}
.warning{color:var(--warning);background:var(--warning-bg)}.unknown{color:var(--unknown);background:var(--unknown-bg)}
.sign{font-weight:700;display:inline-block;min-width:.8em;text-align:center}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:.5rem;background:var(--card)}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
th,td{padding:.45rem .75rem;text-align:left;border-top:1px solid var(--line);vertical-align:top}
thead th{border-top:0;font-weight:600;font-size:.875rem;white-space:nowrap}
tbody th{font-weight:600;white-space:nowrap}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;margin:0 0 1rem;padding:1rem}
dl{display:grid;grid-template-columns:5.5rem 1fr;gap:.2rem .75rem;margin:0}
dt{color:var(--soft);font-size:.875rem}dd{margin:0;min-width:0;overflow-wrap:anywhere}
a{color:inherit}
@media(max-width:36rem){main{padding-top:1.25rem}dl{grid-template-columns:1fr;gap:0}dt{margin-top:.4rem}
th,td{padding:.4rem .5rem}}
@media print{:root{--page:#fff;--card:#fff;--text:#000;--soft:#444;--line:#bbb;--good:#0b5a2c;--good-bg:#fff;--bad:#8f0a1f;
--bad-bg:#fff;--warning:#5e3a00;--warning-bg:#fff;--unknown:#333;--unknown-bg:#fff}
main{max-width:none;padding:0}.scroll{overflow:visible}.card,tr{break-inside:avoid}body{font-size:11pt}}
"""


def document(title: str, style: str, parts: Iterable[str]) -> str:
    """A whole page.

    :param title: as text
    :param style: what this page has beyond :data:`STYLE`
    :param parts: its sections, as markup
    """
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def badge(kind: str, sign: str, words: str) -> str:
    """A state: its colour by class, its sign, and its words."""
    shown = f'<span class="sign" aria-hidden="true">{sign}</span><span class="word">{escape(words)}</span>'
    return f'<span class="state {kind}">{shown}</span>'


def anchor(name: str) -> str:
    """An id for a host's details. Spaces end an id; nothing else has to be kept out."""
    return escape("host-" + "-".join(name.split()), quote=True)


def moment(time: str) -> str:
    """A time in ISO 8601, for people and programs."""
    shown = escape(time)
    return f'<time datetime="{shown}">{shown.replace("T", " ").replace("Z", " UTC")}</time>'


def terms(pairs: Iterable[tuple[str, str]], code: bool = True) -> str:
    """Names with their values, as the inside of a list of definitions."""
    return "".join(
        f"<dt>{escape(term)}</dt><dd>{f'<code>{escape(text)}</code>' if code else escape(text)}</dd>"
        for term, text in pairs
    )
