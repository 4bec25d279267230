# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every query of every panel, on the Prometheus of the lab: it has data."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from testing import ROOT, on, until

DASHBOARDS = ROOT / "roles/monitoring/files/dashboards"
SPARK = "spark-1"
WITHIN = 180
"""Seconds: rates need two scrapes, and the series of a Spark come every 15 s."""
WITHOUT_DATA = {
    "fleet: Differences from recipe and lock": "drift.yml has not run, and its drift.prom lies in no textfile folder",
    "speculation: Accepted at position 0: last window of the watchdog": "the watchdog's window needs more drafts than the lab makes",
}
"""Panels, or single lines of one, that have no data here, and why."""


def queries() -> Iterator[Any]:
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                name = f"{path.stem}: {panel['title']}"
                line = f"{name}: {target.get('legendFormat', '')}"
                if not {name, line} & set(WITHOUT_DATA):
                    yield pytest.param(target["expr"].replace("$spark", SPARK), id=line)


def watcher() -> str:
    """The host of the group monitoring."""
    inventory = yaml.safe_load((Path(__file__).parents[1] / "inventory/hosts.yml").read_text())
    return str(next(iter(inventory["monitoring"]["hosts"])))


def ask(query: str) -> list[Any]:
    url = f"http://127.0.0.1:9090/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    found: list[Any] = json.loads(on(watcher(), f"curl -sS --max-time 10 '{url}'"))["data"]["result"]
    return found


@pytest.mark.parametrize("query", queries())
def test_a_panel_has_data(query: str) -> None:
    assert until(lambda: ask(query), within=WITHIN, every=2)


def test_what_is_named_as_without_data_is_on_a_dashboard() -> None:
    known = set()
    for path in DASHBOARDS.glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            name = f"{path.stem}: {panel['title']}"
            known |= {
                name,
                *(f"{name}: {target.get('legendFormat', '')}" for target in panel.get("targets", [])),
            }
    assert set(WITHOUT_DATA) <= known
