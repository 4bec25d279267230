"""The fleet side by side, and the page that a person reads."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift import container
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift.finding import (
    OF_GATEWAY,
    OF_SPARK,
    SUBJECTS,
    Finding,
    part,
)
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.drift import page as drift_page
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.drift.host import KINDS, LACKING
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.drift.report import (
    COLUMNS,
    COMPARED,
    outliers,
    refusal,
    report,
    rows,
    summary,
    wrapped,
)
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.report import table
from helpers.page import parsed, stands_alone

LOCK = {
    "image": {"pinned": "v@sha256:1"},
    "models": {"body": {"repository": "o/b", "commit": "c" * 40}},
    "patches": [{"name": "p.py", "md5": "1" * 32}],
}
VERSIONS = {"driver": "580.1", "toolkit": "1.19", "engine": "29.1", "kernel": "6.11"}
ARGUMENT = Finding("container", "argument", "--port 8000", "--port <b>8001</b>", "do it")
NEIGHBOUR = Finding("host", "gpu-shared", "none", "other", "stop it", "warning")


def look(*findings, unknown=None, failure="", **known):
    return {
        "parts": {"r": part(SUBJECTS, findings, unknown, {"versions": VERSIONS} | known)},
        "failure": failure,
    }


def made(**looks):
    return report(looks, LOCK, made="2026-11-24T04:00:00Z", verify="stat", recipe="r")


HELD = {"holder": "me@c", "since": "2026-11-24T04:00:00Z", "playbook": "site.yml"}
UNREACHABLE = {"parts": {}, "failure": "the host did not answer"}
FLEET = {
    "clean": look(),
    "warned": look(NEIGHBOUR),
    "edited": look(ARGUMENT, NEIGHBOUR),
    "starting": look(unknown={"server": "it is starting"}),
    "held": look(ARGUMENT, held=HELD),
    "gone": UNREACHABLE,
}


@pytest.mark.parametrize(
    ("host", "verdict"),
    [
        ("clean", "clean"),
        ("warned", "warning"),
        ("edited", "drift"),
        ("starting", "unknown"),
        ("held", "held"),
        ("gone", "unknown"),
    ],
)
def test_verdicts_and_who_fails(host, verdict):
    seen = made(**FLEET)["hosts"][host]
    assert seen["verdict"] == verdict
    assert bool(refusal(seen)) == (verdict not in ("clean", "warning"))


def test_a_subject_is_as_bad_as_the_worst_of_it():
    subjects = made(**FLEET)["hosts"]["edited"]["subjects"]
    assert subjects["container"] == "drift" and subjects["host"] == "warning" and subjects["boot"] == "ok"
    assert set(made(**FLEET)["hosts"]["gone"]["subjects"].values()) == {"unknown"}


def test_drift_weighs_more_than_what_could_not_be_seen():
    host = made(a=look(ARGUMENT, unknown={"container": "x", "server": "y"}))["hosts"]["a"]
    assert (host["subjects"]["container"], host["subjects"]["server"]) == ("drift", "unknown")


def test_a_run_at_work_explains_all_that_is_half_done():
    host = made(**FLEET)["hosts"]["held"]
    assert host["findings"] == [] and "me@c is at work here since" in host["reason"]


def test_a_host_without_an_engine_says_why_the_rest_is_unknown():
    engine = Finding("engine", "engine-stopped", "a", "b", "c")
    host = made(a={"parts": {"p": part(("host", "engine"), [engine])}, "failure": ""})["hosts"]["a"]
    assert host["verdict"] == "drift"
    assert host["unknown"]["container"] == "not looked at: the engine has to answer first"


def test_versions_other_than_those_that_passed():
    passed_on = {"driver": "570.1", "toolkit": "1.19", "engine": "29.1"}
    findings = made(a=look(passed_on=passed_on))["hosts"]["a"]["findings"]
    assert [(f["kind"], f["severity"]) for f in findings] == [("driver-changed", "drift")]
    old = Finding("host", "driver-too-old", "a", "b", "c")
    assert len(made(a=look(old, passed_on=passed_on))["hosts"]["a"]["findings"]) == 1


def test_a_stale_worker_is_a_finding_of_its_host_alone():
    unit = {"unit": "pair", "phase": "running", "generation": "a1", "recorded": {}}
    hosts = made(a=look(member=unit | {"rank": 0}), b=look(member=unit | {"rank": 1, "generation": "b2"}))[
        "hosts"
    ]
    assert hosts["a"]["verdict"] == "clean"
    assert [f["kind"] for f in hosts["b"]["findings"]] == ["unit-stale"] and hosts["b"]["verdict"] == "drift"


def test_the_odd_one_out_is_named_and_a_fleet_without_a_majority_too():
    odd, split = outliers({"a": VERSIONS, "b": VERSIONS, "c": VERSIONS | {"driver": "570.1"}})
    assert [finding.kind for finding in odd["c"]] == ["driver-differs"] and set(odd) == {"c"} and not split
    assert odd["c"][0].expected == "NVIDIA driver 580.1, as on 2 of 3 hosts"
    odd, split = outliers({"a": VERSIONS, "b": VERSIONS | {"kernel": "6.12"}})
    assert odd == {} and [finding.seen for finding in split] == ["6.11 on 1, 6.12 on 1"]


def test_a_host_of_which_nothing_is_known_is_not_odd():
    assert outliers({"a": VERSIONS, "b": {}, "c": VERSIONS | {"toolkit": None}}) == ({}, [])


def test_the_table_and_its_summary():
    whole = made(**FLEET)
    shown = {(row["host"], row["kind"]) for row in rows(whole)}
    assert shown == {
        ("warned", "gpu-shared (warning)"),
        ("edited", "argument"),
        ("edited", "gpu-shared (warning)"),
        ("starting", "unknown"),
        ("held", "held"),
        ("gone", "unknown"),
    }
    assert (
        summary(whole) == "r: 6 hosts, 1 clean, 1 with a warning, 1 with drift, 2 not judged, 1 held by a run"
    )
    lines = table.render(wrapped(rows(whole)), COLUMNS)
    assert max(map(len, lines)) < 180


def test_long_cells_go_on_below():
    row = dict.fromkeys(COLUMNS, "x") | {"seen": "word " * 20}
    first, second, *_rest = wrapped([row])
    assert first["host"] == "x" and second["host"] == "" and second["seen"].startswith("word")


def test_a_gateway_has_its_own_subject_and_a_spark_that_is_one_has_all():
    stopped = Finding("gateway", "gateway-stopped", "it runs", "it is failed", "start it")
    alone = {"parts": {"gateway": part(OF_GATEWAY, [stopped])}, "failure": "", "subjects": OF_GATEWAY}
    both = look() | {"subjects": SUBJECTS}
    both["parts"] |= {"gateway": part(OF_GATEWAY)}
    lost = {"parts": {}, "failure": "the host did not answer", "subjects": OF_GATEWAY}
    whole = made(spark=look(), both=both, alone=alone, lost=lost)
    hosts = whole["hosts"]
    assert whole["subjects"] == list(SUBJECTS)
    assert {name: host["verdict"] for name, host in hosts.items()} == {
        "spark": "clean",
        "both": "clean",
        "alone": "drift",
        "lost": "unknown",
    }
    assert set(hosts["spark"]["subjects"]) == set(OF_SPARK)
    assert hosts["alone"]["subjects"] == {"gateway": "drift"}
    assert hosts["both"]["subjects"]["gateway"] == "ok"
    assert refusal(hosts["alone"]) == "gateway: gateway-stopped"
    shown = page(whole).text
    assert "start it" in shown and "every file of a gateway" in shown
    assert "every file of a gateway" not in page(made(spark=look())).text


# -- the page


def page(whole):
    return parsed(drift_page.render(whole))


def test_the_page_stands_alone():
    stands_alone(drift_page.render(made(**FLEET)))


def test_what_hosts_say_is_text_and_not_markup():
    hostile = '<script>alert("x")</script>&amp;'
    finding = Finding("container", "argument", hostile, hostile, hostile)
    whole = made(
        **{hostile: look(finding, unknown={"server": hostile}), "b": {"parts": {}, "failure": hostile}}
    )
    seen = page(
        whole | {"recipe": hostile, "lock": {"image": hostile, "models": {"body": hostile}, "patches": {}}}
    )
    assert "script" not in seen.tags
    # host (matrix, details, versions), finding (3), unknown, failure, title, heading, recipe, image, model
    assert seen.text.count(hostile) == 13


@pytest.mark.parametrize("side", ["dt", "dd"])
def test_a_long_name_wraps_and_does_not_run_into_its_value(side):
    """Both are cells of a grid, which grow over the next one unless they may be narrower than their longest word, and break it."""
    style = drift_page.render(made(**FLEET)).partition("<style>")[2].partition("</style>")[0]
    rules = re.findall(
        rf"(?:^|[}},\s]){side}(?:,[a-z]+)?\{{([^}}]*)\}}", style.partition("@media(max-width")[0]
    )
    stated = ";".join(rules).split(";")
    assert "min-width:0" in stated and "overflow-wrap:anywhere" in stated, rules


def test_every_colour_has_a_sign_and_a_word():
    text = drift_page.render(made(**FLEET))
    for state in ("ok", "drift", "warning", "unknown", "held"):
        assert (
            f'class="state {state}"><span class="sign" aria-hidden="true">{drift_page.SIGNS[state]}</span><span class="word">{state}'
            in text
        )


def test_the_page_names_every_host_and_finding():
    seen = page(made(**FLEET))
    for words in (
        *FLEET,
        "--port <b>8001</b>",
        "me@c is at work here",
        "it is starting",
        "o/b@" + "c" * 40,
        "580.1",
    ):
        assert words in seen.text


def test_every_subject_is_explained():
    assert tuple(drift_page.SUBJECTS) == SUBJECTS


# -- the documentation

ROOT = Path(__file__).resolve().parents[5]
FROM_CODE = {"Finding": 1, "_finding": 0, "_file": 0, "boot": 0}
"""Where the kind stands among the arguments of what makes a finding."""
COMPUTED = {
    *(f"{name}-changed" for name in ("driver", "toolkit", "engine")),
    *(f"{name}-differs" for name in COMPARED),
    *(f"speculation-{how}" for how in ("ignored", "absent", "mismatch", "unexpected")),
    *KINDS.values(),
    *LACKING,
    *container.KIND_OF_ARGUMENT.values(),
    *("architecture", "gb10", "privileges", "argument", "paused", "stopped"),
}


def kinds_in_code():
    found = set()
    for path in (ROOT / "plugins").glob("*_utils/*drift/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            place = FROM_CODE.get(node.func.id, len(node.args))
            if place < len(node.args) and isinstance(kind := node.args[place], ast.Constant):
                found.add(kind.value)
    return found


def test_every_kind_is_explained_and_none_that_there_is_not():
    text = (ROOT / "docs/drift.md").read_text()
    cells = [
        line.split("|")[2] for line in text.splitlines() if line.startswith("| ") and line.count("|") == 4
    ]
    explained = {kind for cell in cells for kind in re.findall(r"`([a-z0-9-]+)`", cell)} - {
        "drift",
        "stat",
        "true",
    }
    assert explained == kinds_in_code() | COMPUTED
