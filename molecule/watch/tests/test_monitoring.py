"""What the monitoring host sees of the fleet: every target, every series, and an alert for what is really broken."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from fleet import AT, GATE, SPARKS
from streams import Load
from testing import on, until
from watched import FOLDER, NAME, verdict

pytestmark = pytest.mark.usefixtures("serving")
PROMETHEUS, ALERTMANAGER = "http://127.0.0.1:9090", "http://127.0.0.1:9093"
HOSTS = [*SPARKS, GATE]
ADDRESSES = {"watch-1": "172.31.250.103", "watch-2": "172.31.250.104", GATE: AT}


def get(url: str) -> Any:
    """The JSON of an answer, as the monitoring host gets it."""
    return json.loads(on(GATE, f"curl -fsS --max-time 10 '{url}'"))


def value(query: str) -> dict[str, float]:
    """{spark, else host: value} of a query."""
    found = get(f"{PROMETHEUS}/api/v1/query?query={urllib.parse.quote(query)}")["data"]["result"]
    return {
        each["metric"].get("spark") or each["metric"].get("host", ""): float(each["value"][1])
        for each in found
    }


def called() -> set[tuple[str, str]]:
    """(alert, spark) of all that Alertmanager has."""
    alerts = get(f"{ALERTMANAGER}/api/v2/alerts?active=true")
    return {(each["labels"]["alertname"], each["labels"].get("spark", "")) for each in alerts}


@pytest.fixture
def only_looking() -> Iterator[None]:
    """Watchdogs that restart nothing, so that what is broken stays broken. Not by a run: for minutes after it, alerts wait."""
    mode = f'sed -i \'s/"mode": "%s"/"mode": "%s"/\' {FOLDER}/config.json'
    for spark in SPARKS:
        on(spark, mode % ("act", "observe"))
        until(lambda spark=spark: verdict(spark)["mode"] == "observe", within=60)
    yield
    for spark in SPARKS:
        on(spark, mode % ("observe", "act"))


@pytest.mark.long
def test_a_draft_that_stops_agreeing_is_called(address):
    """The first load of all: the drafts of the last 15 minutes count, so it takes as many bad ones as there were good ones."""
    on("watch-1", f"docker exec {NAME} touch /tmp/never")
    try:
        with Load(address, clients=24, tokens=60):
            until(lambda: ("SparkAcceptanceBelowFloor", "watch-1") in called(), within=900, every=2)
    finally:
        on("watch-1", f"docker exec {NAME} rm /tmp/never")
    assert ("SparkAcceptanceBelowFloor", "watch-2") not in called()


def test_every_target_answers():
    """Prometheus reads its files some seconds after its start."""
    wanted = {
        *(("vllm", spark) for spark in SPARKS),
        *(("node", host) for host in HOSTS),
        ("haproxy", GATE),
        ("prometheus", ""),
        ("alertmanager", ""),
    }

    def healths() -> dict[tuple[str, str], str]:
        active = get(f"{PROMETHEUS}/api/v1/targets?state=active")["data"]["activeTargets"]
        return {(each["labels"]["job"], each["labels"].get("host", "")): each["health"] for each in active}

    until(lambda: healths() == dict.fromkeys(wanted, "up"))


def test_the_series_of_a_spark_say_what_it_is():
    until(lambda: set(value("sparkfleet_served_info")) == set(SPARKS))
    assert value("count by (recipe) (count by (recipe, image, lock) (sparkfleet_served_info))") == {"": 1}
    assert set(value("sparkfleet_gate_passed == 1")) == set(SPARKS)
    assert set(value("sparkfleet_acceptance_floor").values()) == {0.4}
    assert set(value("sparkfleet_gpu_temperature_celsius")) == set(SPARKS)
    until(lambda: value('sparkfleet_watchdog_verdict{verdict="well"}') == dict.fromkeys(SPARKS, 1))
    until(lambda: value("sparkfleet:gateway:up") == dict.fromkeys(SPARKS, 1))
    until(lambda: set(value("sparkfleet:memory:available_bytes")) == set(SPARKS))
    assert value("sparkfleet_run_held") == dict.fromkeys(SPARKS, 0)


def test_what_runs_is_what_promtool_accepts_and_listens_on_loopback_alone():
    folder = "/etc/prometheus/sparkfleet"
    assert "SUCCESS" in on(GATE, f"promtool check config {folder}/prometheus.yml")
    assert "SUCCESS" in on(GATE, f"amtool check-config {folder}/alertmanager.yml")
    listening = on(GATE, "ss -Hltn | awk '{print $4}'").split()
    assert {each for each in listening if each.endswith((":9090", ":9093", ":9094"))} == {
        "127.0.0.1:9090",
        "127.0.0.1:9093",
    }
    # Capabilities of the exporter, of the program that writes series, and of Prometheus.
    for unit in ("prometheus-node-exporter", "prometheus"):
        assert on(GATE, f"systemctl show -P CapabilityBoundingSet {unit}").strip() == ""


def test_a_host_that_is_not_the_monitoring_finds_the_ports_closed():
    def reaches(host: str, address: str, port: int) -> bool:
        ask = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}; printf \"GET /metrics HTTP/1.0\\r\\n\\r\\n\" >&3; head -c 4 <&3'"
        return on(host, f"{ask} 2>/dev/null || true") == "HTTP"

    asked = [(ADDRESSES[spark], port) for spark in SPARKS for port in (9100, 8000)] + [(AT, 9100), (AT, 8405)]
    assert [each for each in asked if not reaches(GATE, *each)] == []
    for spark in SPARKS:
        others = [each for each in asked if each[0] != ADDRESSES[spark]]
        assert [each for each in others if reaches(spark, *each)] == []


@pytest.mark.long
def test_a_second_run_changes_nothing_and_a_check_shows_what_would(run):
    again = run("monitoring").end()
    assert not again.failed, again.output
    recap = [line for line in again.output.splitlines() if " ok=" in line]
    assert len(recap) == len(HOSTS)
    assert all(" changed=0 " in line for line in recap), recap
    looked = run("monitoring", "--check", "--diff", monitoring_thresholds={"queue": 77}).end()
    assert not looked.failed, looked.output
    assert "+        expr: sparkfleet:queue:requests > 77" in looked.output


def test_rules_that_promtool_refuses_replace_nothing(run):
    file = "/etc/prometheus/sparkfleet/rules.yml"
    before = on(GATE, f"sha256sum {file}")
    refused = run("monitoring", monitoring_pages='"').end()
    assert refused.failed
    assert on(GATE, f"sha256sum {file}") == before
    assert on(GATE, "systemctl is-active prometheus").strip() == "active"


@pytest.mark.long
def test_an_engine_that_hangs_is_called(address, only_looking):
    with Load(address, clients=8, tokens=400, limit=600):
        until(lambda: value("sparkfleet:requests:running > 0").get("watch-1", 0) > 0)
        on("watch-1", f"docker exec {NAME} touch /tmp/wedged")
        try:
            until(lambda: ("SparkEngineWedged", "watch-1") in called(), within=300)
            assert ("SparkEngineWedged", "watch-2") not in called()
        finally:
            on("watch-1", f"docker exec {NAME} rm /tmp/wedged")
        until(lambda: ("SparkEngineWedged", "watch-1") not in called(), within=300)


@pytest.mark.long
def test_a_short_question_without_an_answer_is_called(only_looking):
    """Nobody else asks."""
    on("watch-2", f"docker exec {NAME} touch /tmp/wedged")
    try:
        until(lambda: ("SparkCanaryFails", "watch-2") in called(), within=240)
    finally:
        on("watch-2", f"docker exec {NAME} rm /tmp/wedged")


@pytest.mark.long
def test_a_server_that_is_stopped_is_called(only_looking):
    on("watch-2", f"kill -STOP $(docker inspect --format '{{{{.State.Pid}}}}' {NAME})")
    try:
        until(lambda: ("SparkServerSilent", "watch-2") in called(), within=120)
        assert ("SparkServerSilent", "watch-1") not in called()
    finally:
        on("watch-2", f"kill -CONT $(docker inspect --format '{{{{.State.Pid}}}}' {NAME})")


@pytest.mark.long
def test_requests_that_wait_are_called(address):
    with Load(address, clients=16, tokens=4):
        for spark in SPARKS:
            on(spark, f"docker exec {NAME} touch /tmp/slow")
        try:
            until(
                lambda: {"SparkQueueLong", "SparkFirstTokenLate"} <= {alert for alert, _ in called()},
                within=300,
            )
        finally:
            for spark in SPARKS:
                on(spark, f"docker exec {NAME} rm /tmp/slow")


@pytest.mark.long
def test_a_run_silences_what_it_explains(only_looking):
    """The lock of a run, and a server that it has stopped."""
    held = {"version": 1, "run": "1", "holder": "me@controller", "controller": "", "since": "2026-11-24T04:00:00Z", "pid": 1, "lease": 3600, "playbook": "site.yml"}  # fmt: skip
    on("watch-2", f"echo {json.dumps(json.dumps(held))} >/var/lib/sparkfleet/run.json")
    try:
        until(lambda: value("sparkfleet:run:held").get("watch-2") == 1)
        on("watch-2", f"systemctl stop {NAME}")
        until(lambda: value('up{job="vllm"}').get("watch-2") == 0)
        time.sleep(15)  # without the run it speaks after 2 s
        assert ("SparkServerSilent", "watch-2") not in called()
    finally:
        on("watch-2", f"rm /var/lib/sparkfleet/run.json; systemctl start {NAME}")


@pytest.mark.long
def test_the_same_comes_as_files_for_a_prometheus_of_ones_own(run, tmp_path):
    done = run("monitoring", monitoring_output=str(tmp_path / "out")).end()
    assert not done.failed, done.output
    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert {
        "rules.yml",
        "prometheus.yml",
        "targets/vllm.json",
        "targets/node.json",
        "targets/haproxy.json",
    } <= names
    assert {name for name in names if name.startswith("dashboards/")}
    mine = json.loads((tmp_path / "out/targets/node.json").read_text())
    assert mine == json.loads(on(GATE, "cat /etc/prometheus/sparkfleet/targets/node.json"))
