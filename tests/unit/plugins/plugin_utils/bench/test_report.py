"""What was measured beside what was published: the report, its table, its Markdown and its page."""

from __future__ import annotations

import copy
import json

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.sparkfleet.vllm.plugins.action import bench_report as action
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.bench import page as bench_page
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.bench import report as bench_report
from helpers.page import parsed, stands_alone
from helpers.reports import Reports
from helpers.sweep import (
    EAGLE,
    HELD_BACK,
    around,
    fleet,
    load,
    measured,
    mtp,
    rate,
    sweep,
    two_loads,
    unmeasured,
    unmeasured_rate,
)

MADE = "2026-11-26T12:00:00Z"


@pytest.fixture(scope="module")
def made():
    return bench_report.report(fleet(), made=MADE)


def rows(made, host, concurrency=1):
    loads = {load["concurrency"]: load for load in made["hosts"][host]["loads"]}
    return {row["name"]: row for row in loads[concurrency]["rows"]}


def test_figures_stand_beside_off_and_beside_their_ceiling(made):
    row = rows(made, "spark-2")["mtp n=4"]
    samples = made["hosts"]["spark-2"]["sweep"]["candidates"][2]["measurement"]["loads"][0]
    speeds = samples["decode_tokens_per_second"]["samples"]
    assert row["tokens_per_second"] == pytest.approx(len(speeds) / sum(1 / speed for speed in speeds))
    assert row["interval"][0] < row["tokens_per_second"] < row["interval"][1]
    off = rows(made, "spark-2")["off"]
    assert row["ratio"] == pytest.approx(row["tokens_per_second"] / off["tokens_per_second"])
    assert row["ratio_interval"][0] < row["ratio"] < row["ratio_interval"][1]
    assert row["ceiling"] == pytest.approx(2.58) and off["ceiling"] == 1


def test_of_several_streams_the_throughput_counts_and_nothing_was_published(made):
    row = rows(made, "spark-2", 4)["mtp n=1"]
    assert row["tokens_per_second"] == row["load"]["tokens_per_second"] > 100
    assert row["published"] is None


def test_published_figures_stand_at_their_depth_of_the_recipes_own_draft(made):
    shown = rows(made, "spark-1")
    assert shown["mtp n=1"]["published"] == {"tokens_per_second": 52.6, "ratio": 52.6 / 39.3, "rates": [0.69]}
    assert shown["off"]["published"]["ratio"] == 1
    assert shown["mtp n=2"]["published"] is None and shown["eagle3 n=1"]["published"] is None
    # What was published and not measured has a row of its own, and is no candidate.
    assert shown["n=4"]["state"] == "not measured here" and shown["n=4"]["index"] is None
    assert shown["n=4"]["published"]["rates"] == [0.65, 0.43, 0.29, 0.21]


def test_a_figure_of_one_draft_is_not_shown_at_another():
    candidates = [
        measured(mtp(1), load([0.7], around(50.0))),
        measured(EAGLE | {"num_speculative_tokens": 4}, load([0.7] * 4, around(60.0))),
    ]
    (shown,) = bench_report.loads(sweep("a", candidates, None))
    kept = {row["name"]: (row["index"], bool(row["published"])) for row in shown["rows"]}
    assert kept == {"mtp n=1": (0, True), "eagle3 n=4": (1, False), "off": (None, True), "n=4": (None, True)}


def test_what_serves_is_measured_first_and_stands_at_its_depth():
    speculations = [mtp(2), None, EAGLE, mtp(1), mtp(4)]
    candidates = [measured(speculation, load([0.7], around(50.0))) for speculation in speculations]
    (shown,) = bench_report.loads(sweep("a", candidates, None) | {"published": None})
    assert [row["name"] for row in shown["rows"]] == ["off", "mtp n=1", "mtp n=2", "mtp n=4", "eagle3 n=1"]
    assert [row["index"] for row in shown["rows"]] == [1, 3, 0, 4, 2]


def test_without_a_speed_a_published_figure_has_no_bar_of_speed():
    whole = copy.deepcopy(fleet())
    del whole["spark-1"]["sweep"]["published"]["figures"][2]["tokens_per_second"]
    report = bench_report.report({"a": whole["spark-1"]}, made=MADE)
    page = bench_page.render(report)
    assert page.count(">not measured here") == 4 and "◇ 52.4" not in page


def test_the_load_that_decides_is_told(made):
    assert [load["decides"] for load in made["hosts"]["spark-1"]["loads"]] == [True]
    assert [load["decides"] for load in made["hosts"]["spark-2"]["loads"]] == [False, False]


def test_a_candidate_is_proposed_for_the_load_that_decides_and_for_no_other():
    candidates = [two_loads(None, [], 39.1, 24.0), two_loads(mtp(1), [0.69], 52.4, 31.0)]
    whole = bench_report.report({"a": {"sweep": sweep("a", candidates, 4), "failure": ""}}, made=MADE)
    one, four = rows(whole, "a")["mtp n=1"], rows(whole, "a", 4)["mtp n=1"]
    assert (one["proposed"], four["proposed"]) == (False, True)
    assert (bench_report.remarks(one), bench_report.remarks(four)) == ("", "proposed for 4 streams")
    assert bench_report.outcome(whole["hosts"]["a"]).startswith(
        "proposed for 4 streams of code and prose together: "
    )
    # In the three charts of that load, each drawn and read out.
    assert parsed(bench_page.render(whole)).text.count("mtp n=1 · proposed") == 6


def held_back():
    """A sweep in which one load of a candidate is not measurable, and one candidate contradicts off."""
    mixed = measured(mtp(1), unmeasured_rate(load([0.69], around(52.4))), load([0.69], around(31.0), 4))
    fast = two_loads(mtp(2), [0.6, 0.3], 99.0, 30.0)
    return sweep("a", [two_loads(None, [], 39.1, 24.0), mixed, fast], None)


def test_what_is_not_measurable_is_shown_as_such_with_its_reason(reports, tmp_path):
    whole = bench_report.report({"a": {"sweep": held_back(), "failure": ""}}, made=MADE)
    shown, other = rows(whole, "a"), rows(whole, "a", 4)
    for name in ("mtp n=1", "mtp n=2"):
        row = shown[name]
        assert (row["state"], row["tokens_per_second"], row["ratio"]) == ("not measurable", None, None)
        cells = bench_report.cells(row)
        assert (cells["tok/s"], cells["times off"], cells["remarks"]) == (
            "not measurable",
            "–",
            "not measurable",
        )
        assert other[name]["state"] == "measured" and other[name]["ratio"]
    assert shown["mtp n=1"]["because"] == HELD_BACK
    assert "expected at most 1.90 times the" in shown["mtp n=2"]["because"]
    assert cells["accepted %"].startswith("60.0") and cells["ceiling"] == "1.90"
    for text in (bench_report.markdown(whole), parsed(bench_page.render(whole)).text):
        assert "mtp n=1, one stream not measurable" in text and "256 tokens of one in 1; do: measure" in text
    result = reports.run(action, {"a": {"spark_sweep": held_back()}}, directory=str(tmp_path), name="x")
    assert any(line.startswith("  mtp n=2, one stream not measurable: expected") for line in reports.said)
    assert any(line.split()[:4] == ["mtp", "n=1", "not", "measurable"] for line in reports.said)
    assert "99.0" not in "\n".join(reports.said).replace(shown["mtp n=2"]["because"], "")
    assert result["report"]["hosts"]["a"]["loads"][0]["rows"][1]["tokens_per_second"] is None


@pytest.mark.parametrize("because", ["kind", "ceiling"])
def test_kinds_of_a_load_that_is_not_measurable_have_no_rate(because):
    """Neither where no witness could tell one, nor where both told one that cannot be."""
    candidates = [measured(None, load([], around(40.0))), measured(mtp(1), load([0.7], around(50.0)))]
    given = candidates[1]["measurement"]["loads"][0]
    if because == "kind":
        candidates[1]["measurement"]["loads"] = [unmeasured_rate(given)]
    else:
        given["kinds"]["prose"]["rate"] = rate([602293.0])
    page = bench_page.render(
        bench_report.report({"a": {"sweep": sweep("a", candidates, None), "failure": ""}}, made=MADE)
    )
    for kind in ("code", "prose"):
        row = page.partition(f'<th scope="row">{kind}</th>')[2].partition("</tr>")[0]
        assert row.count('<td class="number">') == 2 and row.count(">not measurable at 70 %<") == 1
    # Only the reason of a rate that cannot be names it.
    assert page.count("602293") == (because == "ceiling")


def test_a_page_of_which_nothing_is_measurable_says_so():
    candidates = [measured(None, unmeasured_rate(load([], around(40.0))))]
    given = sweep("a", candidates, None) | {"published": None}
    page = bench_page.render(bench_report.report({"a": {"sweep": given, "failure": ""}}, made=MADE))
    stands_alone(page)
    assert "not measurable" in page and "40." not in page


def test_one_witness_is_told():
    candidate = measured(None, load([], around(40.0)))
    given = candidate["measurement"]["loads"][0]
    given["rate"] |= {"server": None, "witnesses": 1, "because": "one witness, the client's clock"}
    (shown,) = bench_report.loads(sweep("a", [candidate], None) | {"published": None})[0]["rows"]
    assert bench_report.cells(shown)["remarks"] == "one witness"


def test_every_host_says_what_came_of_it(made):
    outcomes = {name: bench_report.outcome(host) for name, host in made["hosts"].items()}
    assert outcomes["spark-1"].startswith(
        "proposed for one stream of code and prose together: mtp n=1 gives 51.9 tok/s, off 38.3"
    )
    assert outcomes["spark-2"] == "compared; nothing is proposed"
    untold = copy.deepcopy(made["hosts"]["spark-2"])
    untold["sweep"]["settings"]["no_proposal"] = "too few"
    assert bench_report.outcome(untold) == "compared; nothing is proposed: too few"
    assert outcomes["spark-3"] == "Measure: other traffic, 31 % of the tokens"
    assert outcomes["spark-4"] == "the host did not answer"
    empty = bench_report.report({"a": {"sweep": None, "failure": ""}}, made=MADE)
    assert bench_report.outcome(empty["hosts"]["a"]) == "nothing was measured"


def test_what_broke_off_is_shown_as_far_as_it_came(made):
    assert rows(made, "spark-3")["off"]["tokens_per_second"] and made["hosts"]["spark-3"]["failure"]


def test_a_load_that_one_candidate_lacks_and_requests_that_differ_are_no_reason_to_say_nothing():
    candidates = [
        measured(None, load([], around(40.0))),
        measured(mtp(1), load([0.7], around(50.0)[:5]), load([0.7], around(30.0), 4)),
        measured(mtp(2), load([0.7, 0.5], [50.0])),
    ]
    whole = bench_report.report({"a": {"sweep": sweep("a", candidates, None), "failure": ""}}, made=MADE)
    shown = rows(whole, "a")
    assert shown["mtp n=1"]["tokens_per_second"] and shown["mtp n=1"]["ratio"] is None
    assert shown["mtp n=2"]["interval"] is None
    assert bench_report.remarks(rows(whole, "a", 4)["off"]) == "not under this load"
    parsed(bench_page.render(whole))


def test_drafts_that_only_their_model_tells_apart_are_named_by_it():
    other = EAGLE | {"model": "/models/<other>"}
    assert bench_report.called([None, mtp(1), EAGLE, other]) == [
        "off",
        "mtp n=1",
        "eagle3 n=1 e",
        "eagle3 n=1 <other>",
    ]


def test_other_peoples_tokens_are_told():
    candidate = measured(None, load([], around(40.0)))
    candidate["measurement"]["loads"][0]["foreign_share"] = 0.07
    (shown,) = bench_report.loads(sweep("a", [candidate], None) | {"published": None})[0]["rows"]
    assert bench_report.cells(shown)["remarks"] == "7% of the tokens were for others"


def test_a_row_in_words(made):
    cells = bench_report.cells(rows(made, "spark-2")["mtp n=4"])
    assert cells["accepted %"] == "65.0±1.4  43.0±1.4  29.0±1.3  21.0±1.2"
    assert cells["times off"] == "1.35 (1.33 to 1.37)" and cells["ceiling"] == "2.58"
    assert set(bench_report.cells(rows(made, "spark-1")["mtp n=3"]).values()) == {"mtp n=3", "–", "skipped"}


# -- Markdown and page


def test_markdown_names_everything_and_keeps_its_tables_whole(made):
    text = bench_report.markdown(made)
    for words in (
        "## spark-4",
        "mtp n=3 skipped: at most",
        "### Published, not measured here",
        "65 43 29 21",
        "\\<exit 1\\>",
    ):
        assert words in text
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {len(bench_report.COLUMNS) + 1, len(bench_report.PUBLISHED_COLUMNS) + 1}


def test_the_page_stands_alone_and_has_all_charts(made):
    seen = stands_alone(bench_page.render(made))
    # Three for each load: spark-1, twice spark-2, spark-3.
    assert seen.tags.count("svg") == 12 == seen.tags.count("desc")
    for words in (
        *fleet(),
        "skipped",
        "NVIDIA GB10",
        "68.5±1.3",
        "other traffic, 31 %",
        "the recipe's author",
    ):
        assert words in seen.text


def test_what_is_published_is_named_as_such_wherever_it_is_shown(made):
    seen = parsed(bench_page.render(made))
    # In the legends of all charts with such marks: three of spark-1 and of the one stream of spark-2 and spark-3.
    assert seen.text.count("◇ published, not measured here") == 9
    assert seen.text.count("Published, not measured here") == 3


def test_without_published_figures_nothing_is_said_of_them():
    whole = fleet()
    for look in whole.values():
        if look["sweep"]:
            look["sweep"]["published"] = None
    report = bench_report.report(whole, made=MADE)
    assert "◇" not in bench_page.render(report) and "ublished" not in bench_report.markdown(report)


def hostile_fleet(hostile):
    speculation = {"method": hostile, "model": hostile, "num_speculative_tokens": 1}
    candidates = [
        measured(None, load([], around(40.0))),
        measured(speculation, load([0.7], around(50.0))),
        unmeasured(mtp(2), "skipped", hostile),
    ]
    for candidate in candidates[:2]:
        kinds = candidate["measurement"]["loads"][0]["kinds"]
        kinds[hostile] = kinds.pop("code")
    whole = sweep("a", candidates) | {"recipe": hostile, "hardware": {hostile: hostile}}
    whole["published"] = copy.deepcopy(whole["published"]) | {"source": hostile, "because": hostile}
    return {hostile: {"sweep": whole, "failure": ""}, "b": {"sweep": None, "failure": hostile}}


def test_what_hosts_say_is_text_and_not_markup():
    hostile = '<script>alert("x")</script>|&amp;'
    report = bench_report.report(hostile_fleet(hostile), made=MADE)
    seen = parsed(bench_page.render(report))
    assert "script" not in seen.tags and seen.text.count(hostile) > 15
    assert 'aria-label="<' not in bench_page.render(report)
    text = bench_report.markdown(report)
    assert "<script" not in text.replace("\\<", "") and "\\|\\&amp;" in text


# -- the front


@pytest.fixture
def reports(monkeypatch):
    return Reports(monkeypatch)


FACTS = {
    # As a task registers it; of the second, the task failed.
    "a": {"spark_sweep": fleet()["spark-1"]["sweep"] | {"changed": False, "failed": False}},
    "b": {
        "spark_sweep": {"failed": True, "msg": "other traffic"},
        "spark_failure": {"task": "Measure", "msg": "other traffic"},
    },
    "c": {},
}


def test_it_writes_three_files_and_shows_what_is_in_them(reports, tmp_path):
    result = reports.run(action, FACTS, lost="c", directory=str(tmp_path / "made"), name="tune")
    assert [file.rpartition("/")[2] for file in result["files"]] == ["tune.json", "tune.md", "tune.html"]
    kept = json.loads((tmp_path / "made/tune.json").read_text())
    assert kept == json.loads(json.dumps(result["report"])) and result["changed"] is False
    assert [host["failure"] for host in kept["hosts"].values()] == [
        "",
        "Measure: other traffic",
        "the host did not answer",
    ]
    assert kept["hosts"]["a"]["sweep"] == fleet()["spark-1"]["sweep"]
    shown = "\n".join(reports.said)
    assert (
        "a: proposed for one stream of code and prose together: mtp n=1" in shown
        and "  mtp n=3 skipped: at most 52.8" in shown
    )
    assert "b: Measure: other traffic" in shown and "c: the host did not answer" in shown
    assert any(line.split()[:3] == ["mtp", "n=2", "51.8"] for line in reports.said)
    assert "a, one stream, which decides" in reports.said


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_a_name_is_no_path(reports, tmp_path, name):
    with pytest.raises(AnsibleActionFail, match=r"expected a name .* seen .*; do: write"):
        reports.run(action, FACTS, directory=str(tmp_path), name=name)


def test_a_directory_that_cannot_be_written_is_told(reports, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AnsibleActionFail, match=r"expected a directory .* seen .*file.*; do: name another"):
        reports.run(action, FACTS, directory=str(tmp_path / "file"))
