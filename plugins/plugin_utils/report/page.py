# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages from templates: one file each that loads nothing. A sign and a word stand beside every colour.

Everything but a template's markup is escaped (Jinja2's autoescape), whoever wrote it: most of it is text of hosts. A misspelled name in
a template is an error.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parents[1]
"""Each template lies beside the code that fills it. Its name is the path from here: `drift/page.html.j2`."""


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["anchor"] = anchor
    return made


def render(template: str, **values: Any) -> str:
    """The text of a template with these values."""
    return environment().get_template(template).render(values)


def anchor(name: str) -> str:
    """An id for a host's details. A space would end it; nothing else must be kept out.

    >>> anchor("rack 1")
    'host-rack-1'
    """
    return "host-" + "-".join(name.split())
