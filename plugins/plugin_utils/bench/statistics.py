# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which draft, and how deep: the arithmetic of a sweep over measured candidates. Pure.

One engine step with n drafted tokens takes t_n seconds and yields L_n tokens (the mean acceptance length), so one stream
decodes s_n = L_n / t_n tokens a second. Both L_n, from the counters, and s_n are measured; t_n follows. Leviathan et al. 2023,
"Fast Inference from Transformers via Speculative Decoding", have the same in closed form for positions that are accepted
independently with probability a: L_n = (1 - a^(n+1)) / (1 - a), their equation 1, and with t_n = t_0 (1 + n c) their theorem 3.8.

:func:`speed` decides. With one stream it is tokens over decode seconds, all prompts together. That is the harmonic mean of the single
requests' speeds, since each request yields as many tokens. It covers the same steps as L_n does, which no median of several kinds of
prompts would. With more streams it is the throughput of the whole load.

Only measurable speeds count. A load says itself whether its witnesses agree (module_utils/_gate/rate.py). A speed is also compared
with off and L_n: a step does not get faster with drafts in it, so t_n is at least t_0 and the gain at most L_n.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

from ...module_utils._gate.rate import agree

MEASURED, SKIPPED, FAILED, UNMEASURABLE = "measured", "skipped", "failed", "not measurable"
OFF = "off"
RESAMPLES = 2000
SEED = 20230713
"""Any number, but always the same: a second judgment of a sweep equals the first."""
Z = 1.96
"""Standard errors to either side of an interval of 95 %."""
CHEAPER = 0.5
"""The least cost of a deeper drafted token, as a share of the cheapest one seen. See :func:`sweep_next`."""


class TuneError(ValueError):
    """A sweep that tells nothing; the text says what to measure instead."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one candidate is as another, with its interval of 95 %."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} times ({self.low:.2f} to {self.high:.2f})"


SAME = Ratio(1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Point:
    """What a candidate showed under the load that decides."""

    index: int
    speculation: Mapping[str, Any] | None
    speed: float
    """Tokens a second."""
    seconds: tuple[float, ...]
    """Seconds for a token in each request, in the order of the prompts."""
    length: float
    """Mean acceptance length."""
    rates: tuple[float, ...]
    drafts: int
    kinds: Mapping[str, tuple[float, float]]
    """{kind of prompt: (its tokens a second, its mean acceptance length)}"""

    @property
    def step(self) -> float:
        """Seconds of an engine step; with several streams, their share of it."""
        return self.length / self.speed


def depth(speculation: Mapping[str, Any] | None) -> int:
    """How many tokens are drafted in a step; 0 without speculation."""
    return int(speculation["num_speculative_tokens"]) if speculation else 0


def called(speculation: Mapping[str, Any] | None) -> str:
    """A candidate in a few words: ``off``, ``mtp n=1``."""
    return f"{speculation['method']} n={depth(speculation)}" if speculation else OFF


def ceiling(rates: Iterable[float]) -> float:
    """Tokens a step with these shares of drafts accepted at each position: 1 + their sum.

    This is the mean acceptance length, and the gain in speed if drafting and verifying took no time.
    """
    return 1 + sum(rates)


def load_of(measurement: Mapping[str, Any], concurrency: int) -> Mapping[str, Any]:
    """The measurement with that many streams.

    :raises TuneError: there is none
    """
    loads = {load["concurrency"]: load for load in measurement["loads"]}
    if concurrency not in loads:
        raise TuneError(
            f"expected a load of concurrency {concurrency}, which decides; seen {', '.join(map(str, loads)) or 'none'}; "
            f"do: measure with {concurrency} streams, too, or let another load decide"
        )
    return loads[concurrency]


def unmeasurable(measurement: Mapping[str, Any]) -> str:
    """Why no load of a measurement has a rate (the reason of the first load); empty if one has."""
    untold = [load["rate"]["because"] for load in measurement["loads"] if _rate(load) is None]
    return str(untold[0]) if untold and len(untold) == len(measurement["loads"]) else ""


def _rate(load: Mapping[str, Any], witness: str = "tokens_per_second") -> float | None:
    rate: float | None = load["rate"][witness]
    return rate


def speed(load: Mapping[str, Any], witness: str) -> float:
    """The speed of a measurable load that decides, in tokens a second: one stream's decoding, or the throughput of several."""
    return float(load["tokens_per_second"] if load["concurrency"] > 1 else load["rate"][witness])


@dataclass(frozen=True)
class Shown:
    """What the candidates showed under one load, by their index."""

    points: Mapping[int, Point]
    """Points of the candidates whose rate is measurable"""
    doubts: Mapping[int, str]
    """Why the others have no measurable rate"""
    above: Mapping[int, str]
    """Those of the others that no witness contradicts, but the measurement without speculation does"""

    @property
    def off(self) -> Point | None:
        return next((one for one in self.points.values() if one.speculation is None), None)


def shown(speculations: Sequence[Mapping[str, Any] | None], loads: Mapping[int, Mapping[str, Any]]) -> Shown:
    """Separate the loads of the candidates that count from those that do not.

    All speeds come from one witness: the server's clock if it saw each of them, else the client's.

    :param loads: those of one concurrency, by index of the candidate
    """
    doubts = {index: str(load["rate"]["because"]) for index, load in loads.items() if _rate(load) is None}
    timed = {index: load for index, load in loads.items() if index not in doubts}
    witness = "client" if any(_rate(load, "server") is None for load in timed.values()) else "server"
    found = {index: point(index, speculations[index], load, witness) for index, load in timed.items()}
    off = next((one for one in found.values() if one.speculation is None), None)
    above = {index: because for index, one in found.items() if off and (because := above_ceiling(one, off))}
    return Shown(
        {index: one for index, one in found.items() if index not in above}, {**doubts, **above}, above
    )


def above_ceiling(one: Point, off: Point) -> str:
    """Why a candidate cannot be as fast as it seems beside off: its acceptance does not allow it. Empty if it does.

    The ratio is no more certain than the two rates in it. Each kind of prompt is judged alone, since a mean over all would hide it.
    """
    pairs = {"": ((one.speed, one.length), off.speed)}
    pairs |= {
        f"{kind}: ": (mine, off.kinds[kind][0]) for kind, mine in one.kinds.items() if kind in off.kinds
    }
    for where, ((fast, length), slow) in pairs.items():
        if fast > length * slow and not agree(fast, length * slow):
            return (
                f"{where}expected at most {length:.2f} times the {slow:.1f} tok/s without speculation, the tokens that its acceptance lets "
                f"a step yield, seen {fast:.1f} tok/s, {fast / slow:.2f} times; do: measure both again, on a host that does nothing else"
            )
    return ""


def look(candidates: Sequence[Mapping[str, Any]], concurrency: int) -> Shown:
    """What the measured candidates showed under the load of that concurrency.

    :raises TuneError: one was measured without that concurrency, or with other requests than the rest
    """
    loads = {
        index: load_of(candidate["measurement"], concurrency)
        for index, candidate in enumerate(candidates)
        if candidate["state"] == MEASURED
    }
    seen = shown([candidate["speculation"] for candidate in candidates], loads)
    found = list(seen.points.values())
    if any(not comparable(one, found[0]) for one in found):
        raise TuneError(
            "expected the same requests for each candidate, and at least two, to tell a gain from chance; seen "
            + ", ".join(f"{len(one.seconds)} for {called(one.speculation)}" for one in found)
            + "; do: measure all candidates with one plan, with more repeats or more kinds of prompts"
        )
    return seen


def points(candidates: Sequence[Mapping[str, Any]], concurrency: int) -> list[Point]:
    """The points of :func:`look` that count.

    :raises TuneError: see there
    """
    return list(look(candidates, concurrency).points.values())


def comparable(one: Point, other: Point) -> bool:
    """Whether two candidates answered the same number of requests, and more than one."""
    return len(one.seconds) == len(other.seconds) > 1


def point(index: int, speculation: Mapping[str, Any] | None, load: Mapping[str, Any], witness: str) -> Point:
    """What one measurable load shows of a candidate.

    :param witness: whose clock counts, ``client`` or ``server``
    """
    decode, first = load["decode_tokens_per_second"]["samples"], load["time_to_first_token"]["samples"]
    seconds = [1 / sample for sample in decode]
    if load["concurrency"] > 1:
        # The throughput of a load includes the wait for the first token. All requests ask for the same number of tokens.
        tokens = load["tokens"] / load["requests"]
        seconds = [(wait + (tokens - 1) * each) / tokens for wait, each in zip(first, seconds, strict=True)]
    return Point(
        index,
        speculation,
        speed(load, witness),
        tuple(seconds),
        load["mean_acceptance_length"],
        tuple(load["rates"]),
        load["drafts"],
        {
            kind: (found, ceiling(of["rates"]))
            for kind, of in load["kinds"].items()
            if (found := of["rate"][witness])
        },
    )


def compare(one: Point, other: Point) -> Ratio:
    """How many times as fast `one` is as `other`.

    Both answered the same prompts in the same order, so prompts are drawn in pairs, with replacement (paired bootstrap,
    percentile interval: Efron and Tibshirani 1993). Some prompts are faster than others, whatever is drafted; that cancels out.
    With few prompts the interval is somewhat too narrow.
    """
    if one == other:
        return SAME
    mine, others = one.seconds.__getitem__, other.seconds.__getitem__
    ratios = sorted(sum(map(others, drawn)) / sum(map(mine, drawn)) for drawn in _draws(len(one.seconds)))
    whole = sum(other.seconds) / sum(one.seconds)
    value = one.speed / other.speed
    tail = round(0.025 * RESAMPLES)
    # The spread comes from the streams, and is applied to the value of the whole load.
    return Ratio(value, value * ratios[tail] / whole, value * ratios[-tail - 1] / whole)


def alone(one: Point) -> Ratio:
    """A candidate's own speed with its interval of 95 %: the comparison with one token a second."""
    return compare(one, replace(one, index=-1, speed=1.0, seconds=(1.0,) * len(one.seconds)))


@cache
def _draws(count: int) -> list[list[int]]:
    drawn = random.Random(SEED)  # noqa: S311  no secret
    return [drawn.choices(range(count), k=count) for _number in range(RESAMPLES)]


def highest_rate(rate: float, drafts: int) -> float:
    """The highest share that this many drafts still allow: upper end of the 95 % interval of Wilson 1927. 1 without drafts."""
    spread = Z * math.sqrt(rate * (1 - rate) * drafts + Z * Z / 4)
    return (rate * drafts + Z * Z / 2 + spread) / (drafts + Z * Z)


# -- what to measure next


def sweep_next(
    candidates: Sequence[Mapping[str, Any]],
    wanted: Sequence[Mapping[str, Any] | None],
    concurrency: int,
    margin: float = 0.02,
) -> dict[str, Any]:
    """The next candidate, and the candidates that need no measurement because they cannot win.

    Let n be the deepest measured depth of a draft, whose last position was accepted in a share r of the drafts. k tokens deeper
    gives at most (L_n + k r) / (t_n + k d) tokens a second, where d is the least cost of one more drafted token. If by this no depth
    that is left exceeds the best so far by `margin`, all of them are skipped. This rests on three facts:

    - Positions that both draft are accepted alike, and a further position at most as often as the last: a position counts only if
      those before it were accepted, so its rate cannot be higher. r is taken at the upper end of its interval.
    - A step does not get faster with more to draft and verify. One more token costs at least half of the cheapest seen between
      two depths of this draft, which is taken at the lower end of its interval. It is half because, with a mixture of experts, each
      further token reads fewer experts that none before it has read: with 8 of 128, each 6 % fewer. If one depth was measured, the
      cost is not known and d is 0: the cost of the first token does not count, since it includes the fixed cost of drafting.
    - The speed of n beside that of the best is taken at the upper end of its interval.

    :param candidates: those so far, as a sweep holds them; skipped and failed ones are not proposed again
    :param wanted: all of them, in their order; the shallower depths of a draft first
    :param concurrency: of the load that decides
    :returns: ``{next: speculation or None for off, done: whether none is left, skipped: [{speculation, because}]}``
    :raises TuneError: see :func:`points`
    """
    seen = points(candidates, concurrency)
    known = [candidate["speculation"] for candidate in candidates]
    left = [speculation for speculation in wanted if speculation not in known]
    skipped: list[dict[str, Any]] = []
    while left:
        family = [speculation for speculation in left if draft(speculation) == draft(left[0])]
        because = _cannot_win(seen, family, margin)
        if not because:
            return {"next": left[0], "done": False, "skipped": skipped}
        skipped += [{"speculation": speculation, "because": because} for speculation in family]
        left = [speculation for speculation in left if speculation not in family]
    return {"next": None, "done": True, "skipped": skipped}


def draft(speculation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A speculation without its depth."""
    if speculation is None:
        return None
    return {name: value for name, value in speculation.items() if name != "num_speculative_tokens"}


def _cannot_win(seen: Sequence[Point], left: Sequence[Mapping[str, Any] | None], margin: float) -> str:
    """Why none of these depths of one draft can be the best; empty if one may."""
    tried = sorted(
        (one for one in seen if draft(one.speculation) == draft(left[0])),
        key=lambda one: depth(one.speculation),
    )
    if not tried or depth(left[0]) <= depth(tried[-1].speculation):
        return ""
    last, best = tried[-1], max(seen, key=lambda one: one.speed)
    reached = compare(last, best)
    rate = highest_rate(last.rates[-1], last.drafts) if last.rates else 1.0
    cost = CHEAPER * _cheapest(tried)
    gains = []
    for speculation in left:
        deeper = depth(speculation) - depth(last.speculation)
        gains.append((1 + deeper * rate / last.length) / (1 + deeper * cost / last.step))
    most = reached.high * max(gains)
    if most > 1 + margin:
        return ""
    return (
        f"at most {most * best.speed:.1f} tok/s, where the best so far ({called(best.speculation)}) has {best.speed:.1f} and a gain "
        f"counts from {margin:.0%} on: {called(last.speculation)} has {last.speed:.1f} with {last.length:.2f} tokens a step of "
        f"{1000 * last.step:.1f} ms, and each further token is accepted in at most {rate:.1%} of the drafts and costs at least "
        f"{1000 * cost:.1f} ms"
    )


def _cheapest(tried: Sequence[Point]) -> float:
    """Least seconds that one more drafted token took between two depths of a draft; 0 if there are no two."""
    costs = []
    for shallow, deep in pairwise(tried):
        step = shallow.step * deep.length / shallow.length / compare(deep, shallow).high
        costs.append(max(0.0, step - shallow.step) / (depth(deep.speculation) - depth(shallow.speculation)))
    return min(costs, default=0.0)


# -- what to choose


def sweep_proposal(
    candidates: Sequence[Mapping[str, Any]], concurrency: int, margin: float = 0.02
) -> dict[str, Any] | None:
    """The shallowest candidate that the fastest one does not distinguishably beat; of equally deep ones the fastest.

    A gain is distinguishable if its interval is above 1 and its value reaches `margin`. Speculation itself must gain that, too:
    off is the shallowest of all.

    Speeds that are not measurable take no part. There is no proposal if off has none, or if a speed contradicts that of off: then
    nobody knows which of the two is wrong, and all ratios rest on off.

    :returns: ``{speculation, index of the candidate, concurrency and kinds of prompts that decide, ratio to off, interval: [low, high],
        because}``; None when there is no measurement without speculation to compare with
    :raises TuneError: see :func:`look`; or the proposal would rest on a speed that is not measurable
    """
    told = look(candidates, concurrency)
    seen, off = list(told.points.values()), told.off
    _check_off(candidates, told)
    if off is None:
        return None
    fastest = max(seen, key=lambda one: one.speed)
    level = [one for one in seen if not _gains(compare(fastest, one), margin)]
    chosen = min(level, key=lambda one: (depth(one.speculation), -one.speed))
    ratio = compare(chosen, off)
    return {
        "speculation": chosen.speculation,
        "index": chosen.index,
        "concurrency": concurrency,
        "kinds": list(load_of(candidates[chosen.index]["measurement"], concurrency)["kinds"]),
        "ratio": ratio.value,
        "interval": [ratio.low, ratio.high],
        "because": _reason(chosen, seen, off, margin) + _left_out(candidates, told),
    }


def _check_off(candidates: Sequence[Mapping[str, Any]], told: Shown) -> None:
    """:raises TuneError: there is an off whose speed cannot serve as a baseline"""
    for index, because in told.above.items():
        raise TuneError(
            f"{called(candidates[index]['speculation'])} and off contradict each other: {because}"
        )
    for index, candidate in enumerate(candidates):
        because = told.doubts.get(index, "") or candidate["because"]
        if candidate["speculation"] is None and (index in told.doubts or candidate["state"] == UNMEASURABLE):
            raise TuneError(f"off is {UNMEASURABLE}, and there is nothing else to compare with: {because}")


def _left_out(candidates: Sequence[Mapping[str, Any]], told: Shown) -> str:
    """The candidates that took no part because they have no speed."""
    names = [
        called(candidate["speculation"])
        for index, candidate in enumerate(candidates)
        if index in told.doubts or candidate["state"] == UNMEASURABLE
    ]
    return f"; {UNMEASURABLE} and left out: {', '.join(names)}" if names else ""


def _gains(ratio: Ratio, margin: float) -> bool:
    return ratio.low > 1 and ratio.value >= 1 + margin


def _reason(chosen: Point, seen: Sequence[Point], off: Point, margin: float) -> str:
    """The choice in figures, beside off and beside the fastest of the drafts that were not chosen."""
    name = called(chosen.speculation)
    if chosen is off:
        said = f"no speculation, {off.speed:.1f} tok/s"
    else:
        said = (
            f"{name} gives {chosen.speed:.1f} tok/s, {OFF} {off.speed:.1f}: {compare(chosen, off)} as fast, "
            f"of {ceiling(chosen.rates):.2f} if drafting cost nothing"
        )
    rest = [one for one in seen if one not in (chosen, off)]
    if not rest:
        return said
    rival = max(rest, key=lambda one: one.speed)
    ratio = compare(rival, chosen)
    said += f"; {called(rival.speculation)} gives {rival.speed:.1f}, {ratio} as fast as {name}"
    if ratio.value <= 1:
        return said
    return f"{said}: a gain counts from {margin:.0%} on" if ratio.low > 1 else f"{said}, which may be chance"
