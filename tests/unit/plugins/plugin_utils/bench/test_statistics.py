"""Which draft a sweep chooses, held against the arithmetic of drafts whose acceptance and cost are known."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.rate import TOLERANCE
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.bench import statistics
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.bench.report import loads
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.bench.statistics import (
    TuneError,
    called,
    ceiling,
    compare,
    highest_rate,
    points,
    sweep_next,
    sweep_proposal,
)
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.bench.sweep import (
    SweepError,
    choice,
    entry,
    made,
)
from helpers.sweep import (
    HELD_BACK,
    constructed,
    load,
    measured,
    mtp,
    positions,
    rate,
    swept,
    unmeasured,
    unmeasured_rate,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[5]
DEPTHS = [0, 1, 2, 3, 4, 6, 8]
WANTED = [mtp(tokens) for tokens in DEPTHS]


@pytest.fixture
def fewer_draws(monkeypatch):
    """Many sweeps, quickly."""
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    statistics._draws.cache_clear()
    yield
    statistics._draws.cache_clear()


def gain(acceptance, cost, tokens):
    """Leviathan et al. 2023, theorem 3.8: how many times as fast as without drafting."""
    if acceptance == 1:
        return (1 + tokens) / (1 + tokens * cost)
    return (1 - acceptance ** (tokens + 1)) / (1 - acceptance) / (1 + tokens * cost)


@pytest.mark.usefixtures("fewer_draws")
@pytest.mark.parametrize("cost", [0.0, 0.02, 0.05, 0.1, 0.2, 0.31, 0.5, 0.9, 1.5])
@pytest.mark.parametrize("acceptance", [0.0, 0.05, 0.2, 0.41, 0.55, 0.69, 0.8, 0.93, 1.0])
def test_the_choice_is_the_arithmetics(acceptance, cost):
    _candidates, proposal = swept(
        constructed(acceptance, lambda n: 0.025 * (1 + n * cost)), WANTED, margin=0.0
    )
    # Of equally fast ones the shallower: max gives the first. Rounded, since sums of floats are not what they would be on paper.
    best = max(DEPTHS, key=lambda tokens: round(gain(acceptance, cost, tokens), 9))
    assert proposal["speculation"] == mtp(best)
    assert proposal["ratio"] == pytest.approx(gain(acceptance, cost, best))


def test_nothing_accepted_is_off_and_all_accepted_for_nothing_is_the_deepest():
    assert swept(constructed(0.0, lambda n: 1 + 0.1 * n), WANTED, 0.02)[1]["speculation"] is None
    assert swept(constructed(1.0, lambda n: 1.0), WANTED, 0.02)[1]["speculation"] == mtp(8)


SHAPES = [
    lambda n, c: 1 + c * n,
    lambda n, c: 1 + c * n**0.85,  # experts that were read already
    lambda n, c: 1 + c * n**1.3,  # more tokens than the memory hides
    lambda n, c: 1 + 0.3 * bool(n) + c * n,  # drafting costs something, however few
]


@pytest.mark.usefixtures("fewer_draws")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_the_early_stop_never_skips_the_winner(shape, noise):
    drawn = random.Random(7)
    skips = 0
    for seed in range(20):
        acceptance, cost = drawn.random(), drawn.random() * 0.6

        def step(n: int, cost: float = cost) -> float:
            return 0.025 * shape(n, cost)

        candidates, _proposal = swept(constructed(acceptance, step, noise, seed), WANTED, 0.02)
        speeds = {n: (1 + sum(positions(acceptance, n))) / shape(n, cost) for n in DEPTHS}
        best = max(speeds, key=speeds.__getitem__)
        states = {tuple((c["speculation"] or {}).items()): c["state"] for c in candidates}
        skips += list(states.values()).count("skipped")
        if states[tuple((mtp(best) or {}).items())] == "skipped":
            left = [n for n in DEPTHS if states[tuple((mtp(n) or {}).items())] == "measured"]
            assert speeds[best] <= 1.02 * max(speeds[n] for n in left), (acceptance, cost)
    assert skips > 20


def test_a_draft_that_is_never_accepted_is_measured_once():
    candidates, proposal = swept(constructed(0.0, lambda n: 0.025 + 0.006 * n), WANTED, 0.02)
    assert [candidate["state"] for candidate in candidates] == ["measured"] * 2 + ["skipped"] * 5
    assert candidates[2]["because"] == (
        "at most 37.6 tok/s, where the best so far (off) has 45.6 and a gain counts from 2% on: mtp n=1 has 36.7 with 1.00 tokens a "
        "step of 27.2 ms, and each further token is accepted in at most 0.3% of the drafts and costs at least 0.0 ms"
    )
    assert proposal["speculation"] is None and proposal["index"] == 0
    assert proposal["ratio"] == 1 and proposal["interval"] == [1, 1]
    assert proposal["because"] == (
        "no speculation, 45.6 tok/s; mtp n=1 gives 36.7, 0.81 times (0.81 to 0.81) as fast as off"
    )


def proposed(candidates, concurrency=1, margin=0.02):
    proposal = sweep_proposal(candidates, concurrency, margin)
    assert proposal is not None
    return proposal


def of(speculation, speed, rates=(), **loaded):
    return measured(speculation, load(rates, [speed] * 12, **loaded))


PUBLISHED = [of(None, 39.3), of(mtp(1), 52.6, [0.69]), of(mtp(4), 52.4, [0.65, 0.43, 0.29, 0.21])]
"""By the recipe's author, on one Spark."""


def test_the_recipes_own_sweep_gives_the_recipes_choice():
    proposal = proposed(PUBLISHED, 1)
    assert proposal["index"] == 1 and proposal["ratio"] == pytest.approx(1.338, abs=0.001)
    assert proposal["because"] == (
        "mtp n=1 gives 52.6 tok/s, off 39.3: 1.34 times (1.34 to 1.34) as fast, of 1.69 if drafting cost nothing; "
        "mtp n=4 gives 52.4, 1.00 times (1.00 to 1.00) as fast as mtp n=1"
    )


def test_the_cost_of_a_token_stops_a_sweep():
    """At n=3 a further token may be accepted as often as it takes to win, if it cost nothing. It does not."""
    candidates, proposal = swept(constructed(0.5, lambda n: 0.025 + 0.008 * n), WANTED, 0.02)
    assert [candidate["state"] for candidate in candidates] == ["measured"] * 4 + ["skipped"] * 3
    assert "and costs at least 3.5 ms" in candidates[4]["because"]
    assert proposal["speculation"] == mtp(1)


def test_the_first_tokens_cost_is_not_that_of_the_second():
    """Off and n=1 alone say nothing of what one more token costs, even where n=1 barely pays."""
    seen = [of(None, 40.0), of(mtp(1), 40.5, [0.3])]
    assert sweep_next(seen, [None, mtp(1), mtp(2)], 1)["next"] == mtp(2)


def test_a_deeper_one_has_to_gain_the_margin_and_more_than_chance():
    seen = [of(None, 40.0), of(mtp(1), 52.0, [0.6]), of(mtp(2), 52.8, [0.6, 0.3])]
    assert proposed(seen, 1, margin=0.02)["index"] == 1
    assert proposed(seen, 1, margin=0.01)["index"] == 2
    assert (
        "1.02 times (1.02 to 1.02) as fast as mtp n=1: a gain counts from 2% on"
        in proposed(seen, 1)["because"]
    )
    # On the average 5 % faster, and slower in half of the requests.
    seen[2] = measured(mtp(2), load([0.6, 0.3], [48.0, 64.0] * 6))
    proposal = proposed(seen, 1)
    assert proposal["index"] == 1 and proposal["because"].endswith("which may be chance")


def test_the_shallowest_within_the_margin_of_the_fastest():
    seen = [of(None, 50.0), of(mtp(1), 50.7, [0.5]), of(mtp(2), 51.4, [0.5, 0.2])]
    assert proposed(seen, 1)["index"] == 1


def test_of_two_drafts_of_one_depth_the_faster():
    eagle = {"method": "eagle3", "model": "/models/e", "num_speculative_tokens": 1}
    assert proposed([of(None, 40.0), of(mtp(1), 50.0, [0.5]), of(eagle, 50.5, [0.5])], 1)["index"] == 2


def test_another_draft_is_not_judged_by_the_first():
    eagle = {"method": "eagle3", "num_speculative_tokens": 1}
    seen = [of(None, 40.0), of(mtp(1), 30.0, [0.0])]
    wanted = [None, mtp(1), mtp(2), eagle]
    turn = sweep_next(seen, wanted, 1)
    assert turn["next"] == eagle and [skip["speculation"] for skip in turn["skipped"]] == [mtp(2)]


def test_pairs_of_prompts_are_compared_and_not_their_spread():
    """Prompts differ by half, and each is 5 % faster: that is no chance."""
    prompts = [30.0 + i for i in range(16)]
    one, other = points(
        [
            measured(mtp(1), load([0.5], [1.05 * speed for speed in prompts])),
            measured(None, load([], prompts)),
        ],
        1,
    )
    ratio = compare(one, other)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.05, 1.05, 1.05))


def test_the_interval_covers_what_it_says():
    """Two equally fast candidates, many times over: 1 is inside about 95 times of 100, and the bootstrap is known to give less."""
    drawn = random.Random(3)
    inside = 0
    for _number in range(200):
        speeds = [[50 * (1 + 0.05 * drawn.gauss(0, 1)) for _i in range(24)] for _j in range(2)]
        one, other = points(
            [measured(mtp(1), load([0.5], speeds[0])), measured(None, load([], speeds[1]))], 1
        )
        ratio = compare(one, other)
        inside += ratio.low <= 1 <= ratio.high
    assert 176 <= inside <= 198


def test_with_several_streams_the_throughput_decides():
    """n=1 is faster for each stream once it has begun, and its prompts wait longer: the load as a whole is slower."""
    seen = [
        measured(None, load([], [40.0] * 12), load([], [20.0] * 12, concurrency=4)),
        measured(mtp(1), load([0.6], [50.0] * 12), load([0.6], [21.0] * 12, concurrency=4, first=3.0)),
    ]
    assert proposed(seen, 1)["index"] == 1
    many = proposed(seen, 4)
    assert many["index"] == 0 and many["concurrency"] == 4 and "no speculation, 79.1 tok/s" in many["because"]


def test_a_throughput_carries_the_spread_of_its_streams():
    def interval(first):
        loads = [load([], [20.0] * 12, 4, first), load([0.6], [24.0, 32.0] * 6, 4, first)]
        # The last stream ends alone: the load takes longer than its streams together show.
        loads[0]["tokens_per_second"] *= 0.8
        proposal = proposed([measured(None, loads[0]), measured(mtp(1), loads[1])], 4)
        assert proposal["ratio"] == loads[1]["tokens_per_second"] / loads[0]["tokens_per_second"]
        low, high = (end / proposal["ratio"] for end in proposal["interval"])
        return low, high

    low, high = interval(0.0)
    assert 0.85 < low < 0.95 and 1.05 < high < 1.15
    # Where a request is mostly waiting for its first token, how fast it goes on from there matters less.
    waiting = interval(30.0)
    assert low + 0.03 < waiting[0] < 1 < waiting[1] < high - 0.03


def untimed(speculation, rates=()):
    return measured(speculation, unmeasured_rate(load(rates, [602293.0] * 12)))


def test_a_speed_that_is_not_measurable_takes_no_part():
    seen = [of(None, 40.0), of(mtp(1), 52.0, [0.6]), untimed(mtp(2), [0.6, 0.3])]
    proposal = proposed(seen)
    assert proposal["speculation"] == mtp(1)
    assert proposal["because"].endswith("; not measurable and left out: mtp n=2")
    # Nor is it the best so far, which nothing could reach.
    assert sweep_next(seen, [None, mtp(1), mtp(2), mtp(3)], 1)["next"] == mtp(3)
    assert [one.speculation for one in points(seen, 1)] == [None, mtp(1)]


def test_nothing_is_proposed_beside_an_off_without_a_speed():
    with pytest.raises(
        TuneError, match=r"off is not measurable.*: expected each answer in at least 10 pieces"
    ):
        sweep_proposal([untimed(None), of(mtp(1), 52.0, [0.6])], 1)
    off = unmeasured(None, "not measurable", HELD_BACK)
    with pytest.raises(TuneError, match="off is not measurable.*10 pieces"):
        sweep_proposal([off, of(mtp(1), 52.0, [0.6])], 1)


@pytest.mark.parametrize(("gain", "allowed"), [(1.6, True), (1.91, True), (1.93, False), (15000, False)])
def test_a_gain_above_what_acceptance_allows_is_no_gain(gain, allowed):
    """At 60 % a step yields 1.6 tokens. Two rates of which each is believed to 20 % may show 1.92."""
    seen = [of(None, 40.0), of(mtp(1), 40.0 * gain, [0.6])]
    assert [one.speculation for one in points(seen, 1)] == ([None, mtp(1)] if allowed else [None])
    if not allowed:
        with pytest.raises(
            TuneError, match=r"mtp n=1 and off contradict.*at most 1.60 times the 40.0 tok/s.*seen .*; do: "
        ):
            sweep_proposal(seen, 1)


def test_a_kind_of_prompt_that_is_too_fast_does_not_hide_in_the_mean():
    quick = of(mtp(1), 52.0, [0.6])
    quick["measurement"]["loads"][0]["kinds"]["prose"]["rate"] = rate([602293.0])
    with pytest.raises(
        TuneError, match=r"prose: expected at most 1.60 times the 40.0 tok/s.*seen 602293.0 tok/s"
    ):
        sweep_proposal([of(None, 40.0), quick], 1)


def test_speeds_are_compared_by_one_clock():
    """The server's clock says 10 % more than the client's, and it did not see one of the candidates."""
    seen = [of(None, 40.0), of(mtp(1), 40.0, [0.6])]
    one = seen[1]["measurement"]["loads"][0]["rate"]
    one |= {"server": 44.0, "tokens_per_second": 44.0}
    assert [each.speed for each in points(seen, 1)] == [40.0, 44.0]
    seen[0]["measurement"]["loads"][0]["rate"] |= {"server": None, "witnesses": 1}
    assert [each.speed for each in points(seen, 1)] == pytest.approx([40.0, 40.0])


SPEEDS = st.one_of(st.floats(20, 120), st.floats(1e3, 1e6))
RATES = st.lists(st.floats(0, 1), min_size=3, max_size=3).map(lambda rates: sorted(rates, reverse=True))


@st.composite
def sweeps(draw):
    """Candidates that were measured under two loads, of which some have no rate, and some one that cannot be."""

    def one(tokens):
        rates = draw(RATES)[:tokens]
        loads = []
        for concurrency in (1, 4):
            given = load(rates, [draw(SPEEDS)] * 2, concurrency)
            for kind in given["kinds"].values():
                kind["rate"] = rate([draw(SPEEDS)]) if draw(st.booleans()) else kind["rate"]
            loads.append(unmeasured_rate(given) if draw(st.integers(0, 4)) == 0 else given)
        return entry(mtp(tokens), "measured", measurement=measured(mtp(tokens), *loads)["measurement"])

    depths = draw(st.lists(st.integers(0, 3), unique=True, min_size=1, max_size=4))
    return [one(tokens) for tokens in depths]


@pytest.mark.usefixtures("fewer_draws")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sweeps(), st.sampled_from([1, 4]))
def test_no_proposal_rests_on_a_speed_that_is_not_measurable(candidates, concurrency):
    whole = made(
        candidates, {"recipe": "r"}, {}, host="a", info={}, concurrency=concurrency, margin=0.02, propose=True
    )  # fmt: skip
    proposal = whole["proposal"]
    for shown in loads(whole):
        for row in shown["rows"]:
            doubted = row["state"] == "not measurable"
            assert doubted == (row["tokens_per_second"] is None)
            assert not (doubted and (row["proposed"] or row["ratio"] or not row["because"]))
            assert not row["ratio"] or row["ratio"] <= row["ceiling"] * (1 + TOLERANCE) * (1 + 1e-9)
    if proposal is None:
        with pytest.raises(SweepError, match="seen none"):
            choice({"a": whole}, "r")
        return
    for speculation in (None, proposal["speculation"]):
        (each,) = (each for each in candidates if each["speculation"] == speculation)
        (given,) = (one for one in each["measurement"]["loads"] if one["concurrency"] == concurrency)
        assert given["rate"]["tokens_per_second"] is not None
    kinds = {kind: shown["rate"]["server"] for kind, shown in given["kinds"].items()}
    (off,) = (each for each in candidates if each["speculation"] is None)
    (slow,) = (one for one in off["measurement"]["loads"] if one["concurrency"] == concurrency)
    for kind, fast in kinds.items():
        most = ceiling(given["kinds"][kind]["rates"]) * slow["kinds"][kind]["rate"]["server"]
        assert fast <= most * (1 + TOLERANCE) * (1 + 1e-9)
    assert choice({"a": whole}, "r")["measured"]["concurrency"] == concurrency


def test_without_off_there_is_nothing_to_propose():
    assert sweep_proposal([unmeasured(None, "failed", "x"), of(mtp(1), 50.0, [0.5])], 1) is None


def test_what_failed_is_not_tried_again_and_stops_nothing():
    seen = [of(None, 40.0), unmeasured(mtp(1), "failed", "out of memory")]
    assert sweep_next(seen, [None, mtp(1), mtp(2)], 1)["next"] == mtp(2)


def test_off_comes_first_and_is_no_end():
    assert sweep_next([], [None, mtp(1)], 1) == {"next": None, "done": False, "skipped": []}
    assert sweep_next([of(None, 40.0)], [None], 1) == {"next": None, "done": True, "skipped": []}


def test_a_sweep_that_nothing_can_be_told_from_says_what_to_measure():
    with pytest.raises(TuneError, match=r"concurrency 8.*seen 1;.*do: measure with 8 streams"):
        sweep_next([of(None, 40.0)], [None, mtp(1)], 8)
    single = measured(None, load([], [40.0]))
    with pytest.raises(TuneError, match=r"at least two.*seen 1 for off; do: measure all"):
        sweep_proposal([single], 1)
    with pytest.raises(TuneError, match="seen 12 for off, 2 for mtp n=1"):
        points([of(None, 40.0), measured(mtp(1), load([0.5], [50.0, 51.0]))], 1)


def test_ceiling_and_the_rate_that_is_still_possible():
    assert ceiling([]) == 1 and ceiling([0.65, 0.43, 0.29, 0.21]) == pytest.approx(2.58)
    assert highest_rate(0.69, 200) == pytest.approx(
        0.750, abs=0.002
    )  # Wilson; 0.69 + 1.96 standard errors is 0.754
    assert 0 < highest_rate(0.0, 1000) < 0.004 and highest_rate(0.0, 0) == 1
    assert called(None) == "off" and called(mtp(2)) == "mtp n=2"


STEPS = {"Spark of [1]": (1 / 39.3, 1.69 / 52.6, 2.58 / 52.4), "H100 of [2]": (4.14, 5.72, 9.85)}
"""Seconds, and milliseconds, of a step at n=0, 1 and 4, as docs/speculation.md has them."""


@pytest.mark.parametrize("machine", STEPS)
def test_the_documented_acceptance_from_which_a_depth_is_best(machine):
    none, one, four = STEPS[machine]

    def speed(acceptance: float, tokens: int) -> float:
        step = one + (tokens - 1) * (four - one) / 3 if tokens else none
        return (1 + sum(positions(acceptance, tokens))) / step

    best = [max(range(9), key=partial(speed, acceptance / 1000)) for acceptance in range(1000)]
    cells = [f"{best.index(n) / 1000:.2f}" for n in range(1, 6)]
    assert f"| {machine}, from a = | 0 | {' | '.join(cells)} |" in (ROOT / "docs/speculation.md").read_text()
