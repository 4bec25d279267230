"""The files of Prometheus and Alertmanager, as their own programs read them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.sparkfleet.vllm.plugins.module_utils._series import gpu, spark
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.drift import series as drift
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.monitoring import numbers, plan
from helpers.monitoring import inputs, recorded, rendered, rules
from helpers.promtool import AMTOOL, PROMTOOL, needs_promtool
from helpers.recipe import ROOT

LOOKS: dict[str, tuple[str | None, str]] = {"spark-1": (recorded(), "192.0.2.1")}
OPTIONS = yaml.safe_load((ROOT / "roles/monitoring/meta/argument_specs.yml").read_text())["argument_specs"][
    "main"
]["options"]


def check(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def written(folder: Path) -> Path:
    """All files of the monitoring host. Returns that of Prometheus."""
    targets = plan.plan(inputs(), LOOKS).targets
    (folder / "targets").mkdir()
    for job, found in targets.items():
        (folder / f"targets/{job}.json").write_text(json.dumps(found))
    (folder / "rules.yml").write_text(rules())
    config = folder / "prometheus.yml"
    config.write_text(rendered("prometheus.yml", LOOKS, monitoring_directory=str(folder)))
    return config


@needs_promtool
def test_prometheus_takes_its_configuration_with_rules_and_targets(tmp_path: Path) -> None:
    config = written(tmp_path)
    done = check(str(PROMTOOL), "check", "config", str(config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout
    (tmp_path / "targets/vllm.json").write_text('[{"targets": 1}]')
    assert check(str(PROMTOOL), "check", "config", str(config)).returncode != 0


def test_every_job_has_an_end() -> None:
    for job in yaml.safe_load(rendered("prometheus.yml", LOOKS))["scrape_configs"]:
        if job["job_name"] in plan.JOBS:
            assert (job["body_size_limit"], job["sample_limit"] > 0) == ("16MB", True)


@needs_promtool
@pytest.mark.parametrize(
    "receiver", [{}, {"webhook_configs": [{"url": "http://192.0.2.7/x?a={{b}}"}], "name": "mine"}]
)
def test_alertmanager_takes_its_configuration(receiver: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(rendered("alertmanager.yml", monitoring_receiver=receiver))
    done = check(str(AMTOOL), "check-config", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = yaml.safe_load(path.read_text())["receivers"]
    assert found == {**receiver, "name": "fleet"}


def test_both_listen_on_loopback_and_keep_a_bounded_past() -> None:
    arguments = rendered("prometheus.default")
    assert "--web.listen-address=127.0.0.1:9090 " in arguments
    assert "--storage.tsdb.retention.time=30d --storage.tsdb.retention.size=8GB" in arguments
    arguments = rendered("prometheus-alertmanager.default")
    assert '--web.listen-address=127.0.0.1:9093 --cluster.listen-address="' in arguments


def test_every_number_is_an_input_with_its_default_and_its_bounds() -> None:
    for option, bounds in (
        ("monitoring_thresholds", numbers.THRESHOLDS),
        ("monitoring_waits", numbers.WAITS),
    ):
        described = OPTIONS[option]["options"]
        assert set(described) == set(bounds)
        for name, (default, _least, most) in bounds.items():
            text = described[name]["description"]
            assert f"Default, {default:g};" in text and text.replace(",", "").endswith(f" {most}."), text


def test_the_rules_use_every_number() -> None:
    text = (ROOT / "roles/monitoring/templates/rules.yml.j2").read_text()
    assert set(re.findall(r"\[\[ __monitoring_plan\.thresholds\.(\w+)", text)) == set(numbers.THRESHOLDS)
    assert set(re.findall(r"\[\[ __monitoring_plan\.waits\.(\w+)", text)) == set(numbers.WAITS)


def test_the_rules_ask_for_series_that_somebody_writes() -> None:
    known = {*spark.HELPS, *gpu.HELPS, *drift.HELPS}
    assert set(re.findall(r"\bsparkfleet_\w+", rules())) <= known


def test_the_page_lists_every_series_and_every_alert() -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    found = [rule for group in yaml.safe_load(rules())["groups"] for rule in group["rules"]]
    recorded_names = {rule["record"] for rule in found if "record" in rule}
    assert set(re.findall(r"`(sparkfleet:[\w:]+\w)`", page)) == recorded_names
    assert set(re.findall(r"^\| \[(Spark\w+)\]", page, re.MULTILINE)) == {
        rule["alert"] for rule in found if "alert" in rule
    }
    written_names = {*spark.HELPS, *gpu.HELPS, "sparkfleet_drift_findings"}
    assert set(re.findall(r"`(sparkfleet_\w+)`", page)) == written_names


def test_the_page_says_which_alerts_wait_for_a_run() -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    said = dict(re.findall(r"^\| \[(Spark\w+)\].*\| (waits|speaks) \|$", page, re.MULTILINE))
    for group in yaml.safe_load(rules())["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert said[rule["alert"]] == ("waits" if "sparkfleet:run:held" in rule["expr"] else "speaks")
