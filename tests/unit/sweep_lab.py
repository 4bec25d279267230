"""Drafts of known acceptance and cost, and what a sweep over them would have measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.sparkfleet.vllm.plugins.module_utils._tune import sweep_next, sweep_proposal

Speculation = dict[str, Any] | None
DRAFTS = 1200
TOKENS = 256
REQUESTS = 12


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
            "code": {"decode_tokens_per_second": speeds[0], "drafts": drafts // 2, "rates": list(rates)},
            "prose": {"decode_tokens_per_second": speeds[-1], "drafts": drafts // 2, "rates": list(rates)},
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
