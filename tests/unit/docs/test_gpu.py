# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured on GPUs (docs/gpu*.json) goes through the sweep's arithmetic, and docs/gpu.md says what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.bench import report, statistics

DOCS = Path(__file__).parents[3] / "docs"


def by_one_witness(load: dict[str, Any]) -> dict[str, Any]:
    """These were measured by the client's clock alone, before the server's was asked, too."""
    samples, kinds = load["decode_tokens_per_second"]["samples"], load["kinds"]
    each = len(samples) // len(kinds)
    parts = {kind: samples[index * each : (index + 1) * each] for index, kind in enumerate(kinds)}
    of_kinds = {kind: shown | {"rate": client_rate(parts[kind])} for kind, shown in kinds.items()}
    return load | {"rate": client_rate(samples), "kinds": of_kinds}


def client_rate(samples: list[float]) -> dict[str, Any]:
    whole = len(samples) / sum(1 / sample for sample in samples)
    return {"tokens_per_second": whole, "client": whole, "server": None, "witnesses": 1, "because": ""}


def read() -> dict[str, Any]:
    sweeps: dict[str, Any] = json.loads((DOCS / "gpu-2026-11.json").read_text(encoding="utf-8"))
    for sweep in sweeps.values():
        for candidate in sweep["candidates"]:
            measurement = candidate["measurement"]
            measurement["loads"] = [by_one_witness(load) for load in measurement["loads"]]
    return sweeps


SWEEPS = read()
PAGE = (DOCS / "gpu.md").read_text(encoding="utf-8").splitlines()
WHOLE = ("first start", "second start")


def loads(start: str) -> dict[int, list[dict[str, Any]]]:
    """By number of streams the rows of the report."""
    return {load["concurrency"]: load["rows"] for load in report.loads(SWEEPS[start])}


def rounded(value: Any) -> Any:
    """From 3.12 on Python adds floats more exactly, so the last digits differ."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def seen(row: dict[str, Any]) -> tuple[str, str, str]:
    load = row["load"]
    return (
        report.accepted(load),
        f"{1000 * load['time_to_first_token']['median']:.0f}",
        f"{100 * load['kv_cache_usage']:.2f}",
    )


def one_stream(start: str) -> list[str]:
    return [
        line(
            *(start, row["name"], row["load"]["requests"]),
            report.within(row["tokens_per_second"], row["interval"], 1),
            report.within(row["ratio"], row["ratio_interval"], 2),
            *(f"{row['ceiling']:.2f}", f"{row['ratio'] / row['ceiling']:.0%}".replace("%", " %"), *seen(row)),
        )
        for row in loads(start)[1]
    ]


def several(streams: int) -> list[str]:
    rows = loads("first start")[streams]
    off = rows[0]["load"]["decode_tokens_per_second"]["median"]
    made = []
    for row in rows:
        stream = row["load"]["decode_tokens_per_second"]["median"]
        made.append(
            line(
                *(streams, row["name"], row["load"]["requests"]),
                f"{row['tokens_per_second']:.0f}",
                report.within(row["ratio"], row["ratio_interval"], 2),
                *(f"{stream:.1f}", f"{stream / off:.2f}", *seen(row)),
            )
        )
    return made


@pytest.mark.parametrize(
    "lines", [*map(one_stream, WHOLE), several(4), several(8)], ids=["first", "second", "4", "8"]
)
def test_the_page_has_the_measured_figures(lines: list[str]) -> None:
    at = PAGE.index(lines[0])
    assert PAGE[at : at + len(lines)] == lines


@pytest.mark.parametrize(
    ("start", "streams"), [("first start", 1), ("first start", 4), ("first start", 8), ("second start", 1)]
)
def test_the_acceptance_that_was_set_is_the_one_that_was_measured(start: str, streams: int) -> None:
    for row in loads(start)[streams]:
        candidate = SWEEPS[start]["candidates"][row["index"]]
        asked = (candidate["speculation"] or {}).get("synthetic_acceptance_rates", [])
        errors = row["load"]["standard_errors"]
        assert len(row["load"]["rates"]) == len(asked)
        assert all(
            abs(rate - wanted) < 3 * error
            for rate, wanted, error in zip(row["load"]["rates"], asked, errors, strict=True)
        )


@pytest.mark.parametrize(
    ("start", "streams"), [("first start", 1), ("first start", 4), ("first start", 8), ("second start", 1)]
)
def test_one_token_a_step_is_proposed(start: str, streams: int) -> None:
    proposal = statistics.sweep_proposal(SWEEPS[start]["candidates"], streams)
    assert proposal is not None
    assert statistics.called(proposal["speculation"]) == "mtp n=1"


@pytest.mark.parametrize("start", WHOLE)
def test_the_proposal_on_file_is_the_one_that_the_figures_give(start: str) -> None:
    sweep = SWEEPS[start]
    settings = sweep["settings"]
    proposal = statistics.sweep_proposal(sweep["candidates"], settings["concurrency"], settings["margin"])
    assert proposal is not None and proposal.pop("kinds") == settings["plan"]["kinds"]
    assert rounded(sweep["proposal"]) == rounded(proposal)


TWO: dict[str, Any] = json.loads((DOCS / "gpu-two-2026-11.json").read_text(encoding="utf-8"))


def two(start: str) -> list[str]:
    made = []
    for layout, sweep in TWO["starts"][start].items():
        (load,) = report.loads(sweep)
        for row in load["rows"]:
            seconds = row["load"]["mean_acceptance_length"] / row["tokens_per_second"]
            made.append(
                line(
                    *(start, layout, row["name"]),
                    report.within(row["tokens_per_second"], row["interval"], 1),
                    report.within(row["ratio"], row["ratio_interval"], 2),
                    *(f"{1000 * seconds:.2f}", *seen(row)[:2]),
                    f"{sweep['candidates'][row['index']]['ready_seconds']:.0f}",
                )
            )
    return made


@pytest.mark.parametrize("start", WHOLE)
def test_the_page_has_the_figures_of_two_gpus(start: str) -> None:
    lines = two(start)
    at = PAGE.index(lines[0])
    assert PAGE[at : at + len(lines)] == lines


@pytest.mark.parametrize("start", WHOLE)
def test_the_gate_passed_on_two_gpus(start: str) -> None:
    for sweep in TWO["starts"][start].values():
        for candidate in sweep["candidates"]:
            gate = candidate["gate"]
            assert gate["verdict"] == "pass"
            assert (gate["drafts"] is not None) == (candidate["speculation"] is not None)
            if gate["drafts"]:
                assert abs(gate["acceptance_rate"] - 0.69) < 3 * gate["standard_error"]
