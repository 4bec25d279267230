# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dashboards of the role monitoring: made by tools/dashboards.py, and every query is one that Prometheus takes, of series that exist.

molecule/watch/tests/test_panels.py runs each query on a real Prometheus.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import dashboards
import pytest
import yaml
from ansible_collections.sparkfleet.vllm.plugins.module_utils._series import gpu, spark
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.drift import series as drift
from helpers.promtool import PROMTOOL, needs_promtool
from helpers.recipe import ROOT
from panels import BOARDS, Panel

SHOWN = [(board, panel) for board in BOARDS.values() for _row, panels in board.rows for panel in panels]
PANELS = [pytest.param(board, panel, id=f"{board.title}: {panel.title}") for board, panel in SHOWN]
RECORDED = set(re.findall(r"- record: (\S+)", (ROOT / "roles/monitoring/templates/rules.yml.j2").read_text()))
TOLD = {*gpu.HELPS, *spark.HELPS, *drift.HELPS, "ALERTS", "up"}


def queries() -> list[str]:
    return [query.replace("$spark", "spark-1") for _board, panel in SHOWN for query, _legend in panel.queries]


def written(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((dashboards.TARGET / f"{name}.json").read_text())
    return found


def test_the_files_are_what_the_generator_makes() -> None:
    assert {path.name: path.read_text() for path in dashboards.TARGET.glob("*.json")} == dashboards.made()


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_a_panel_says_what_it_shows_in_which_unit_and_what_to_do(board: Any, panel: Panel) -> None:
    assert panel.title and panel.unit and panel.queries
    assert len(panel.bad) > 30 and panel.bad.endswith("."), panel.bad
    shown = [each for each in written(board.uid.partition("-")[2])["panels"] if each["title"] == panel.title]
    assert shown[-1]["description"] == panel.bad
    assert shown[-1]["fieldConfig"]["defaults"]["unit"] == panel.unit
    assert [target["expr"] for target in shown[-1]["targets"]] == [query for query, _legend in panel.queries]


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_a_query_names_series_that_exist_and_the_spark_that_was_chosen(board: Any, panel: Panel) -> None:
    for query, _legend in panel.queries:
        names = set(re.findall(r"\b(?:sparkfleet[:_][\w:]+|ALERTS|up)\b", query))
        assert names and names <= RECORDED | TOLD, query
        assert ('{spark="$spark"}' in query) is board.one_spark, query


@needs_promtool
def test_prometheus_takes_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [str(PROMTOOL), "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


@pytest.mark.parametrize("name", BOARDS)
def test_no_panel_covers_another(name: str) -> None:
    places = [panel["gridPos"] for panel in written(name)["panels"]]
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in places)


def test_names_and_numbers_are_unique() -> None:
    assert len({board.uid for board in BOARDS.values()}) == len(BOARDS)
    for name in BOARDS:
        numbers = [panel["id"] for panel in written(name)["panels"]]
        assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_asks_for_the_data_source_and_where_it_matters_for_the_spark(name: str) -> None:
    asked = [each["name"] for each in written(name)["templating"]["list"]]
    assert asked == ["datasource", *(["spark"] if BOARDS[name].one_spark else [])]
    sources = {json.dumps(panel["datasource"]) for panel in written(name)["panels"] if panel["type"] != "row"}
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}
