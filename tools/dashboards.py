"""roles/monitoring/files/dashboards/*.json from tools/panels.py, with the builders that Grafana's makers publish.

    python tools/dashboards.py

A dashboard is in the oldest form that the builders know, which every later Grafana reads.
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import BOARDS, STAT, TABLE, Board, Panel

TARGET = Path(__file__).resolve().parents[1] / "roles/monitoring/files/dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
SPARKS = "label_values(sparkfleet_run_held, spark)"
"""Every Spark has this series, whether it serves or not."""
WIDTH, HEIGHT, LOW = 8, 8, 4
"""Of a panel, in units of the grid, which has 24 columns."""


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in made().items():
        (TARGET / name).write_text(text)


def made() -> dict[str, str]:
    """The files, by name."""
    return {f"{name}.json": dump(dashboard(board)) for name, board in BOARDS.items()}


def dump(board: Any) -> str:
    return json.dumps(board, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def dashboard(board: Board) -> Any:
    builder = (
        Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["sparkfleet"])
        .time("now-6h", "now")
        .refresh("1m")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    if board.one_spark:
        builder = builder.with_variable(
            QueryVariable("spark")
            .label("Spark")
            .datasource(SOURCE)
            .query(SPARKS)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
        )
    numbers = count(1)
    for title, panels in board.rows:
        builder = builder.with_row(Row(title).id(next(numbers)))
        for one in panels:
            width = 24 // len(panels) if one.kind == STAT else WIDTH
            builder = builder.with_panel(panel(one, width).id(next(numbers)))
    return builder.build()


def panel(one: Panel, width: int) -> Any:
    kinds: dict[str, Any] = {STAT: stat.Panel, TABLE: table.Panel}
    builder = (
        kinds.get(one.kind, timeseries.Panel)()
        .title(one.title)
        .description(one.bad)
        .datasource(SOURCE)
        .unit(one.unit)
        .span(width)
        .height(LOW if one.kind == STAT else HEIGHT)
    )
    if one.kind not in (STAT, TABLE):
        builder = (
            builder.min(0)
            .fill_opacity(8)
            .legend(
                common.VizLegendOptions()
                .show_legend(True)
                .display_mode(LegendDisplayMode.LIST)
                .placement(LegendPlacement.BOTTOM)
            )
            .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        )
        if one.most is not None:
            builder = builder.max(one.most)
    for index, (expression, legend) in enumerate(one.queries):
        builder = builder.with_target(query(one, expression, legend, chr(ord("A") + index)))
    return builder


def query(one: Panel, expression: str, legend: str, name: str) -> Any:
    builder = prometheus.Dataquery().expr(expression).ref_id(name)
    if one.kind == TABLE:
        return builder.instant().format(PromQueryFormat.TABLE)
    builder = builder.instant() if one.kind == STAT else builder.range()
    return builder.legend_format(legend) if legend else builder


if __name__ == "__main__":
    main()
