# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A day from a Prometheus whose answers are not believed."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._status import day
from helpers.recipe import ROOT
from helpers.server import Handler, served

NOW = 1_796_083_200.0
START = int(NOW) - 86_400


def answer(kind: str, *results: Any) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": list(results)}}).encode()


def series(spark: str, *values: Any) -> dict[str, Any]:
    return {"metric": {"__name__": "s", "spark": spark}, "values": list(values)}


GOOD = answer("matrix", series("one", [START, "1.23456"], [START + 1200, "NaN"], [NOW, "7"]))


class Prometheus(Handler):
    """Answers as it is told, and notes what it was asked."""

    body: bytes
    status = 200
    pause = 0.0
    asked: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        path, _mark, fields = self.path.partition("?")
        self.asked.append((path, dict(urllib.parse.parse_qsl(fields))))
        if self.pause:
            self.send_response(200)
            self.flush_headers()
            for _each in range(100):
                self.wfile.write(b"X-More: 1\r\n")
                self.wfile.flush()
                time.sleep(self.pause)
        body = answer("vector") if path.endswith("/query") else self.body
        self.answer(self.status, body)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return  # whoever asked has gone


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Prometheus, "body", GOOD, raising=False)
    monkeypatch.setattr(Prometheus, "asked", [], raising=False)
    with served(ThreadingHTTPServer(("127.0.0.1", 0), Prometheus)) as server:
        yield f"127.0.0.1:{server.server_address[1]}"


def test_a_day_is_each_series_on_one_grid(address: str) -> None:
    found = day.day(address, ["one", "two"], NOW)
    assert (found["start"], found["step"], found["alerts"]) == (START, 600, [])
    assert list(found["hosts"]) == ["one"] and set(found["hosts"]["one"]) == set(day.SERIES)
    values = found["hosts"]["one"]["waiting"]
    assert len(values) == 145 and (values[0], values[1], values[2], values[-1]) == (1.235, None, None, 7.0)


def test_prometheus_is_asked_for_each_series_and_the_alerts(address: str) -> None:
    day.day(address, ["one"], NOW)
    *ranges, (path, last) = Prometheus.asked
    assert [fields["query"] for _path, fields in ranges] == list(day.SERIES.values())
    assert ranges[0][1]["start"] == str(START) and ranges[0][1]["end"] == str(int(NOW))
    assert (path, last["query"]) == ("/api/v1/query", 'ALERTS{alertstate="firing"}')


def test_every_series_is_recorded_by_the_rules() -> None:
    rules = (ROOT / "roles/monitoring/templates/rules.yml.j2").read_text()
    recorded = set(re.findall(r"^ +- record: (\S+)$", rules, re.M))
    assert recorded >= set(day.SERIES.values())


def test_other_hosts_are_left_out() -> None:
    body = answer("matrix", series("one", [START, "1"]), series("stranger", [START, "1"]))
    assert list(day.of_series(body, START, {"one"})) == ["one"]


def test_times_outside_the_day_are_left_out() -> None:
    body = answer("matrix", series("one", [START - 9000, "1"], [NOW + 9000, "1"]))
    assert set(day.of_series(body, START, {"one"})["one"]) == {None}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "expected JSON of Prometheus, seen b'<html>'"),
        (b"[]", "expected a mapping"),
        (answer("vector"), "expected a matrix, seen 'vector'"),
        (answer("matrix", {"metric": {}, "values": 5}), "values: expected a list"),
        (answer("matrix", series("one", [START])), "expected pairs of time and value"),
        (answer("matrix", series("one", [START, 5])), "expected pairs of time and value"),
        (answer("matrix", series("one", ["x", "5"])), "expected pairs of time and value"),
        (answer("matrix", series("one", [START, "five"])), "expected a number, seen 'five'"),
    ],
)
def test_an_answer_of_another_shape_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(day.DayError, match=re.escape(said)):
        day.of_series(body, START, {"one"})


def test_alerts_are_few_short_texts_in_the_order_of_hosts() -> None:
    firing = [
        {"metric": {"alertname": "B", "severity": "warning", "spark": "two"}},
        {"metric": {"alertname": "A" * 200, "severity": "critical", "host": "one"}},
        {"metric": {"alertname": "C", "gateway": "gate"}},
    ]
    found = day.of_alerts(answer("vector", *firing))
    assert [(each["host"], each["name"][:3], each["severity"]) for each in found] == [
        ("gate", "C", ""), ("one", "AAA", "critical"), ("two", "B", "warning"),
    ]  # fmt: skip
    assert len(found[1]["name"]) == 100
    assert len(day.of_alerts(answer("vector", *firing * 100))) == day.MOST_ALERTS


@pytest.mark.parametrize("what", ["bytes", "time", "status", "absent", "no port"])
def test_an_answer_is_bounded_and_its_failure_says_where(
    address: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "bytes": "seen more",
        "time": "no end of the answer after 0.3 s",
        "status": "503 busy",
        "absent": "refused",
        "no port": "nonnumeric port",
    }
    if what == "bytes":
        monkeypatch.setattr(day, "LIMIT", 20)
    if what == "time":
        monkeypatch.setattr(Prometheus, "pause", 0.05)
    if what == "status":
        monkeypatch.setattr(Prometheus, "status", 503)
        monkeypatch.setattr(Prometheus, "body", b"busy")
    where = {"absent": "127.0.0.1:1", "no port": "there:x"}.get(what, address)
    began = time.monotonic()
    with pytest.raises(day.DayError, match=said[what]) as failed:
        day.ask(where, "/api/v1/query_range", {}, seconds=0.3)
    assert where in str(failed.value) and time.monotonic() - began < 3
