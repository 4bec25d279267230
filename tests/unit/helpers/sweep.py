"""Drafts of known acceptance and cost, and what a sweep over them would have measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.bench.statistics import (
    sweep_next,
    sweep_proposal,
)

Speculation = dict[str, Any] | None
DRAFTS = 1200
TOKENS = 256
REQUESTS = 12
HELD_BACK = "expected each answer in at least 10 pieces, seen 256 tokens of one in 1; do: measure at the server itself"


def mtp(tokens: int) -> Speculation:
    return {"method": "mtp", "num_speculative_tokens": tokens} if tokens else None


def spread(samples: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(samples)
    mean = sum(samples) / len(samples)
    sd = (sum((sample - mean) ** 2 for sample in samples) / max(1, len(samples) - 1)) ** 0.5
    middle = (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2
    return {
        "median": middle,
        "mean": mean,
        "sd": sd,
        "minimum": ordered[0],
        "maximum": ordered[-1],
        "samples": list(samples),
    }


def rate(speeds: Sequence[float]) -> dict[str, Any]:
    """Of requests that decode at these speeds, by two witnesses."""
    whole = len(speeds) / sum(1 / speed for speed in speeds)
    return {
        "tokens_per_second": whole,
        "client": whole,
        "server": whole,
        "witnesses": 2,
        "because": "",
    }


def unmeasured_rate(load: Mapping[str, Any], because: str = HELD_BACK) -> dict[str, Any]:
    """The same load, as the benchmark gives it where its rate is not measurable."""
    without = {**load["rate"], "tokens_per_second": None, "because": because}
    return {**load, "rate": without, "tokens_per_second": None, "decode_tokens_per_second": None}


def load(
    rates: Sequence[float], speeds: Sequence[float], concurrency: int = 1, first: float = 0.2
) -> dict[str, Any]:
    """What one load measures whose requests decode at these speeds."""
    drafts = DRAFTS if rates else 0
    seconds = [first + (TOKENS - 1) / speed for speed in speeds]
    wall = sum(seconds) / concurrency
    accepted = [round(rate * drafts) for rate in rates]
    return {
        "concurrency": concurrency,
        "requests": len(speeds),
        "tokens": TOKENS * len(speeds),
        "seconds": wall,
        "tokens_per_second": TOKENS * len(speeds) / wall,
        "rate": rate(speeds),
        "decode_tokens_per_second": spread(speeds),
        "time_to_first_token": spread([first] * len(speeds)),
        "drafts": drafts,
        "draft_tokens": drafts * len(rates),
        "accepted": sum(accepted),
        "accepted_per_position": accepted,
        "rates": list(rates),
        "standard_errors": [(rate * (1 - rate) / DRAFTS) ** 0.5 for rate in rates],
        "mean_acceptance_length": 1 + sum(rates),
        "kv_cache_usage": 0.02,
        "foreign_share": 0.0,
        "kinds": {
            "code": {"rate": rate(speeds[:1]), "drafts": drafts // 2, "rates": list(rates)},
            "prose": {"rate": rate(speeds[-1:]), "drafts": drafts // 2, "rates": list(rates)},
        },
    }


def measured(speculation: Speculation, *loads: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "speculation": speculation,
        "state": "measured",
        "because": "",
        "measurement": {
            "served_model": "m",
            "version": "0.32.0",
            "container": None,
            "speculation": speculation,
            "measured_at": "2026-11-26T12:00:00Z",
            "plan": {
                "kinds": ["code", "prose"],
                "max_tokens": TOKENS,
                "warmup": 1,
                "repeats": 6,
                "concurrency": [1],
            },
            "loads": list(loads),
        },
    }


def unmeasured(speculation: Speculation, state: str, because: str) -> dict[str, Any]:
    return {"speculation": speculation, "state": state, "because": because, "measurement": None}


def positions(acceptance: float, tokens: int) -> list[float]:
    """Each position accepted with that probability, if those before it were."""
    return [acceptance**position for position in range(1, tokens + 1)]


def constructed(
    acceptance: float, step: Callable[[int], float], noise: float = 0.0, seed: int = 0
) -> Callable[[Speculation], dict[str, Any]]:
    """A draft as a sweep would find it. `step`: seconds of an engine step by drafted tokens; noise: relative, per request."""

    def measure(speculation: Speculation) -> dict[str, Any]:
        tokens = speculation["num_speculative_tokens"] if speculation else 0
        drawn = random.Random(seed * 100 + tokens)
        rates = positions(acceptance, tokens)
        speed = (1 + sum(rates)) / step(tokens)
        # Prompts differ, whatever is drafted, and each request differs by chance on top.
        speeds = [speed * (1 + 0.1 * (i % 4)) * (1 + noise * drawn.gauss(0, 1)) for i in range(REQUESTS)]
        return measured(speculation, load(rates, speeds))

    return measure


def swept(
    measure: Callable[[Speculation], dict[str, Any]], wanted: Sequence[Speculation], margin: float
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All candidates and the proposal, as the playbook's loop makes them."""
    candidates: list[dict[str, Any]] = []
    while True:
        turn = sweep_next(candidates, wanted, 1, margin)
        candidates += [
            unmeasured(skip["speculation"], "skipped", skip["because"]) for skip in turn["skipped"]
        ]
        if turn["done"]:
            proposal = sweep_proposal(candidates, 1, margin)
            assert proposal
            return candidates, proposal
        candidates.append(measure(turn["next"]))


PUBLISHED: dict[str, Any] = {
    "source": "the recipe's author, https://example.org/post_1, one DGX Spark, chat",
    "deepest": 1,
    "because": "n=4 gives 52.4 tok/s",
    "figures": [
        {"num_speculative_tokens": 0, "tokens_per_second": 39.3, "rates": []},
        {"num_speculative_tokens": 1, "tokens_per_second": 52.6, "rates": [0.69]},
        {"num_speculative_tokens": 4, "tokens_per_second": 52.4, "rates": [0.65, 0.43, 0.29, 0.21]},
    ],
}
EAGLE: dict[str, Any] = {"method": "eagle3", "model": "/models/e", "num_speculative_tokens": 1}


def sweep(host: str, candidates: Sequence[Mapping[str, Any]], concurrency: int | None = 1) -> dict[str, Any]:
    """As a playbook makes it. Without a concurrency nothing is proposed."""
    return {
        "version": 1,
        "recipe": "huihui-gemma4-mtp-n1",
        "host": host,
        "hardware": {"gpu": "NVIDIA GB10", "driver": "580.95"},
        "settings": {
            "plan": {"kinds": ["code", "prose"], "repeats": 6},
            "margin": 0.02,
            "concurrency": concurrency,
        },
        "candidates": list(candidates),
        "proposal": sweep_proposal(candidates, concurrency) if concurrency else None,
        "published": PUBLISHED,
    }


def around(speed: float) -> list[float]:
    """Requests of several kinds of prompts, none quite like the other."""
    drawn = random.Random(speed)
    return [speed * (1 + 0.06 * ((i % 4) - 1.5) + 0.03 * drawn.gauss(0, 1)) for i in range(REQUESTS)]


def two_loads(speculation: Speculation, rates: Sequence[float], one: float, four: float) -> dict[str, Any]:
    return measured(speculation, load(rates, around(one)), load(rates, around(four), 4, 0.4))


def fleet() -> dict[str, dict[str, Any]]:
    """Looks of a fleet: a whole sweep, a comparison of two loads, one that broke off, and one that is gone."""
    whole = [
        measured(None, load([], around(38.9))),
        measured(mtp(1), load([0.685], around(51.8))),
        measured(mtp(2), load([0.66, 0.44], around(52.3))),
        unmeasured(
            mtp(3),
            "skipped",
            "at most 52.8 tok/s, where the best so far (mtp n=2) has 52.3 and a gain counts from 2% on",
        ),
        unmeasured(EAGLE, "failed", "start: expected a server that answers, seen <exit 1>; do: see its log"),
    ]
    compared = [
        two_loads(None, [], 39.1, 24.0),
        two_loads(mtp(1), [0.69], 52.4, 31.0),
        two_loads(mtp(4), [0.65, 0.43, 0.29, 0.21], 51.9, 34.0),
    ]
    return {
        "spark-1": {"sweep": sweep("spark-1", whole), "failure": ""},
        "spark-2": {"sweep": sweep("spark-2", compared, None), "failure": ""},
        "spark-3": {
            "sweep": sweep("spark-3", whole[:1], None),
            "failure": "Measure: other traffic, 31 % of the tokens",
        },
        "spark-4": {"sweep": None, "failure": "the host did not answer"},
    }
