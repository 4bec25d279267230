# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What antsibull-docs writes, made fit to be read beside the pages of this collection. Pure."""

from __future__ import annotations

import re

COLLECTION = "sparkfleet.vllm"
NOTE = re.compile(r"\.\. Collection note\n\n\.\. note::\n(?: {4}.*\n|\n)+")
ENTRY = re.compile(r"^    (\w+)_(module|filter|role)$", re.MULTILINE)
ENTRY_POINT = re.compile(r"(?=^\.\. _ansible_collections\.\S+__entrypoint-[\w-]+:$)", re.MULTILINE)
TABLE = re.compile(r"^\.\. tabularcolumns::.*?(?=^\.\. Attributes$)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^(?=  \* - \.\. raw:: html$)", re.MULTILINE)
PARAMETER = re.compile(r'id="parameter-[\w-]+?--([\w/]+)"')
LABEL = re.compile(r"^ *(\.\. _(ansible_collections\.\S+):)$", re.MULTILINE)


class Unexpected(Exception):
    """antsibull-docs writes something else than it did."""


def index(text: str) -> str:
    """The page that lists everything, without what the front page says of the collection."""
    _about, mark, listed = text.partition(f".. _module_plugins_in_{COLLECTION}:")
    title = "Role Index\n----------"
    if not mark or title not in listed:
        raise Unexpected("expected lists of modules and roles, seen none")
    listed = listed.replace(title, "Roles\n~~~~~")
    # The navigation has room for a name.
    listed = ENTRY.sub(r"    \1 <\1_\2>", listed)
    return f"Modules, filters, roles\n=======================\n\n{mark}{listed}"


def plugin(text: str, instead: str = "") -> str:
    """A page without the note on where to install the collection from, which is no matter of every page."""
    text, notes = NOTE.subn(instead, text)
    if notes != 1:
        raise Unexpected(f"expected one note on the collection, seen {notes}")
    return text


def role(text: str, name: str) -> str:
    """The page of a role, `main` first. A parameter that is the same elsewhere is only named there: tables of forty for each of
    a dozen entry points would hide what is different."""
    head, *entries = ENTRY_POINT.split(plugin(text, f"What it is for: :doc:`/roles/{name}`.\n\n"))
    mains = [entry for entry in entries if "__entrypoint-main:\n" in entry]
    if len(mains) != 1:
        raise Unexpected(f"expected one entry point main, seen {len(mains)}")
    known = parameters(mains[0])
    head = head.replace(":depth: 2", ":depth: 1")
    others = [shortened(entry, known) for entry in entries if entry not in mains]
    return "".join([head, *mains, *others])


def parameters(entry: str) -> dict[str, str]:
    """The rows of an entry point's table by their parameter; those of its suboptions belong to it."""
    table = TABLE.search(entry)
    found: dict[str, str] = {}
    for row in ROW.split(table[0])[1:] if table else []:
        seen = PARAMETER.search(row)
        if seen is None:
            raise Unexpected(f"expected the row of a parameter, seen {row[:200]}")
        name = seen[1].partition("/")[0]
        found[name] = found.get(name, "") + row
    return found


def shortened(entry: str, known: dict[str, str]) -> str:
    """An entry point that names what it has in common with `main`, whose parameters are `known`."""
    mine = parameters(entry)
    common = [name for name, row in mine.items() if said(row) == said(known.get(name, ""))]
    if not common:
        return entry
    # Other pages point at them here.
    labels = [label for name in common for label, _target in LABEL.findall(mine[name])]
    links = ", ".join(f":ref:`{name} <{LABEL.findall(known[name])[0][1]}>`" for name in common)
    lines = [*labels, "", f"As for ``main``: {links if len(common) < len(known) else 'all of them'}.", "", ""]

    def table(match: re.Match[str]) -> str:
        left = [row for name, row in mine.items() if name not in common]
        return "\n".join(lines) + ("".join([ROW.split(match[0])[0], *left]) if left else "")

    return TABLE.sub(table, entry, count=1)


def said(row: str) -> str:
    """What a row says, whichever entry point it belongs to."""
    return re.sub(r"(parameter-|#role:)[a-z_]+?(--|__|:)", r"\1\2", row).strip()
