"""Each alert fires for what it is about, and for nothing else: real promtool on the rules of the role, with the cases of alerts.yml."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.monitoring import rules
from helpers.promtool import PROMTOOL, needs_promtool
from helpers.recipe import ROOT

pytestmark = needs_promtool
CASES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("alerts.yml").read_text())
THRESHOLDS, WAITS = {"gate_age": 0.01}, {"digests": 900, "gate_old": 60}
"""Those that would take days."""
RULES = rules(thresholds=THRESHOLDS, waits=WAITS)
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES)["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
DURING_A_RUN = {
    "SparkGpuHot",
    "SparkGpuThrottled",
    "SparkDiskFull",
    "SparkSeriesOld",
    "SparkUnreachable",
    "SparkGatewaySilent",
    "SparkGateOld",
}
"""Those that no run explains."""
HELD = {'sparkfleet_run_held{spark="a"}': "1x200"}


def series(given: dict[str, str]) -> list[dict[str, str]]:
    return [{"series": name, "values": values} for name, values in given.items() if values]


def answer(folder: Path, tests: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    (folder / "rules.yml").write_text(RULES)
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": tests}
    (folder / "tests.yml").write_text(yaml.safe_dump(document))
    return subprocess.run(
        [str(PROMTOOL), "test", "rules", "tests.yml"], cwd=folder, capture_output=True, text=True, check=False
    )


def case(alert: str, given: dict[str, str], fires: bool) -> dict[str, Any]:
    expr = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    wanted = [{"labels": "{}", "value": 1}] if fires else []
    asked = {"expr": expr, "eval_time": CASES[alert]["at"], "exp_samples": wanted}
    return {"interval": "15s", "input_series": series(given), "promql_expr_test": [asked]}


def test_every_alert_has_a_case_that_fires_and_one_that_must_not() -> None:
    assert set(CASES) == set(ALERTS)
    assert [alert for alert, known in CASES.items() if not known["fires"] or not known["quiet"]] == []


@pytest.mark.parametrize("alert", CASES)
def test_it_fires_for_what_it_is_about_and_for_nothing_else(alert: str, tmp_path: Path) -> None:
    """And it waits while a run has the Spark, if a run explains it."""
    known = CASES[alert]
    tests = [case(alert, each, True) for each in (known["fires"], *known.get("also", []))]
    tests += [case(alert, known["fires"] | each, False) for each in known["quiet"]]
    tests.append(case(alert, known["fires"] | HELD, alert in DURING_A_RUN))
    done = answer(tmp_path, tests)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", CASES)
def test_its_text_is_filled_in_and_says_expected_seen_and_do(alert: str, tmp_path: Path) -> None:
    """promtool prints what it got, since this expects nothing."""
    asked = {"eval_time": CASES[alert]["at"], "alertname": alert, "exp_alerts": []}
    tests = [{"interval": "15s", "input_series": series(CASES[alert]["fires"]), "alert_rule_test": [asked]}]
    said = " ".join(answer(tmp_path, tests).stderr.split())
    (text,) = re.findall(r'description="(.*?)", runbook_url', said)
    assert re.match(r"Expected .+, seen .+\. Do: .+\.$", text), text
    assert "error" not in text and "no value" not in text and "{{" not in text


def test_every_alert_leads_to_an_entry_of_the_troubleshooting_page() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    entries = dict(re.findall(r"^### (Spark\w+)\n(.*?)(?=^#|\Z)", page, flags=re.DOTALL | re.MULTILINE))
    assert set(entries) == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"docs/troubleshooting.md#{name.lower()}"
        assert re.search(r"- Means.*\n- Do: ", entries[name], re.DOTALL), name


def test_every_alert_has_a_severity_and_a_line_that_names_where() -> None:
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert re.match(r"\{\{ \$labels\.(spark|host|gateway|recipe) \}\}: ", rule["annotations"]["summary"])
