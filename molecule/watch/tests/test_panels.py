# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every query of every panel, on the Prometheus of the lab: it has data."""

from __future__ import annotations

import json
import time
import urllib.parse
from typing import Any

import pytest
from fleet import GATE
from streams import Load
from testing import ROOT, on

pytestmark = pytest.mark.usefixtures("serving")
DASHBOARDS = ROOT / "roles/monitoring/files/dashboards"
SPARK = "watch-1"
WITHIN = 180
"""Seconds: rates need two scrapes, and the series of a Spark come every 15 s."""
WITHOUT_DATA = {
    "fleet: Differences from recipe and lock: {{spark}}": "drift.yml has not run, and its drift.prom lies in no textfile folder",
}
"""Lines of panels that have no data here, and why."""


def queries() -> dict[str, str]:
    """Each line of each panel with its query."""
    return {
        f"{path.stem}: {panel['title']}: {target.get('legendFormat', '')}": target["expr"].replace(
            "$spark", SPARK
        )
        for path in sorted(DASHBOARDS.glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", [])
    }


def ask(query: str) -> list[Any]:
    url = f"http://127.0.0.1:9090/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    found: list[Any] = json.loads(on(GATE, f"curl -sS --max-time 10 '{url}'"))["data"]["result"]
    return found


def test_every_panel_has_data_of_a_fleet_that_serves(address):
    missing = {name: query for name, query in queries().items() if name not in WITHOUT_DATA}
    assert len(missing) > 40
    deadline = time.monotonic() + WITHIN
    with Load(address, clients=4, tokens=40):
        while missing and time.monotonic() < deadline:
            missing = {name: query for name, query in missing.items() if not ask(query)}
            time.sleep(2)
    assert missing == {}


def test_what_is_named_as_without_data_is_on_a_dashboard():
    assert set(WITHOUT_DATA) <= set(queries())
