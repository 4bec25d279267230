# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Sphinx is told. It is started by build.py, which lays the pages out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from docutils import nodes

_galaxy = yaml.safe_load((Path(__file__).resolve().parents[2] / "galaxy.yml").read_text())

project = f"{_galaxy['namespace']}.{_galaxy['name']}"
release = version = _galaxy["version"]
extensions = ["myst_parser", "sphinx_antsibull_ext"]
# As a Git host makes anchors of headings.
myst_heading_anchors = 4
# A block that names no language is a command or what it shows.
highlight_language = "none"

# What is quoted here is code.
smartquotes = False

html_title = project
html_theme = "sphinx_rtd_theme"
html_theme_options = {"navigation_depth": 3, "prev_next_buttons_location": "bottom"}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
html_use_index = False

_ANSIBLE = "https://docs.ansible.com/ansible/latest"
_GUIDES = {
    "action_plugins": "plugins/action.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}


def _elsewhere(app: Any, env: Any, node: Any, shown: nodes.Element) -> nodes.reference | None:
    """A link to Ansible's own documentation, whose labels would otherwise have to be fetched to be known."""
    target = node["reftarget"]
    guide = _GUIDES.get(target)
    if target.startswith("ansible_collections.") and not target.startswith(f"ansible_collections.{project}."):
        _ansible, namespace, name, plugin = target.split("__")[0].split(".")
        guide = f"collections/{namespace}/{name}/{plugin}.html"
    return nodes.reference("", "", shown, refuri=f"{_ANSIBLE}/{guide}", internal=False) if guide else None


def setup(app: Any) -> None:
    app.connect("missing-reference", _elsewhere)
