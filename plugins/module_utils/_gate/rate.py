# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a server decodes, by two witnesses: the client, which times its streams, and the server, which times its requests.

Each can be wrong alone. If something on the way holds a stream back, it arrives in one piece, and the client sees hundreds of
thousands of tokens a second. The server's histogram covers all its requests, other people's too. So a rate counts only if both
witnesses agree, or if there is one and it can be believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import diagnosis
from .diagnosis import Traffic

if TYPE_CHECKING:  # a report compares rates on the controller, which has none of the libraries of a host
    from .._vllm import client, metrics

UNMEASURABLE = "tok/s not measurable"
TOLERANCE = 0.2
"""Largest share by which one rate may exceed the other; above it they contradict each other. Both describe one interval, seen from
two ends. The client sees text, so the first tokens may pass without one (half a Chinese character, the mark of a thought), and either
end may be off by a step: 10 of 200 tokens each at a depth of 9. A busy client adds the time that it waits for its turn. The fault to
find is far beyond: a stream that was held back is ten times too fast, or more."""
PIECES = 10
"""Least number of pieces in which an answer must arrive. The clock misses the tokens of the first: of ten equal pieces, a tenth."""


@dataclass(frozen=True)
class Rate:
    """Tokens a second of one stream after its first token, all requests together."""

    client: float | None
    """By the client's clock; None when it had nothing to time."""
    server: float | None
    """By the server's histogram; None when it says nothing of these requests alone."""
    problem: str = ""
    """Why the rate is not measurable; empty when it is."""
    alone: str = ""
    """Why there is one witness; empty when there are two."""

    @property
    def tokens_per_second(self) -> float | None:
        """The server's, else the client's; None when it is not measurable."""
        if self.problem:
            return None
        return self.client if self.server is None else self.server

    def __str__(self) -> str:
        value = self.tokens_per_second
        return UNMEASURABLE if value is None else f"{value:.1f} tok/s"

    def result(self) -> dict[str, Any]:
        """The rate in the form that the modules return."""
        return {
            "tokens_per_second": _rounded(self.tokens_per_second),
            "client": _rounded(self.client),
            "server": _rounded(self.server),
            "witnesses": 1 if self.alone else 2,
            "because": self.problem or self.alone,
        }


def measure(completions: Sequence[client.Completion], gained: metrics.Delta) -> Rate:
    """The rate of some streams.

    :param gained: what the server's counters gained over them
    """
    ours = Traffic(len(completions), sum(completion.completion_tokens for completion in completions))
    after_first = sum(max(0, completion.completion_tokens - 1) for completion in completions)
    seconds = sum(completion.last - completion.first for completion in completions)
    by_client = after_first / seconds if after_first and seconds > 0 else None
    alone = _alone(ours, gained)
    by_server = None
    if not alone and after_first and gained.decode_seconds:
        by_server = after_first / gained.decode_seconds
    problem = _held_back(completions) or _impossible(ours, gained)
    if not problem and not alone:
        problem = _contradiction(by_client, by_server)
    return Rate(by_client, by_server, problem, alone)


def agree(one: float, other: float) -> bool:
    """Whether two rates do not contradict each other."""
    return max(one, other) <= (1 + TOLERANCE) * min(one, other)


def _alone(ours: Traffic, gained: metrics.Delta) -> str:
    """Why the server's histogram cannot speak for our requests alone; empty when it can."""
    if gained.decode_seconds is None:
        return "one witness, the client's clock: the server publishes no histogram of its decode times"
    if gained.finished not in (None, ours.requests):
        return (
            f"one witness, the client's clock: {gained.finished} requests ended meanwhile, {ours.requests} of them ours, and the "
            "server's histogram cannot tell them apart"
        )
    share = diagnosis.foreign_share(gained, ours)
    if share > diagnosis.FOREIGN_SHARE:
        return f"one witness, the client's clock: {share:.0%} of the tokens meanwhile were for others"
    return ""


def _held_back(completions: Sequence[client.Completion]) -> str:
    """Why the streams cannot be timed: one came in too few pieces. The server's clock does not help, since each stream counts alone."""
    fewest = min(completions, key=lambda completion: completion.pieces, default=None)
    if fewest is not None and fewest.pieces >= PIECES and fewest.decode_rate is not None:
        return ""
    seen = "no answer" if fewest is None else f"{fewest.completion_tokens} tokens of one in {fewest.pieces}"
    return (
        f"expected each answer in at least {PIECES} pieces, one engine step after the other, seen {seen}; do: measure at the server "
        "itself, since something between here and it holds answers back, or ask for longer answers (max_tokens)"
    )


def _impossible(ours: Traffic, gained: metrics.Delta) -> str:
    """Why the server cannot have made these answers; empty when it can."""
    if gained.generated is None or gained.generated * (1 + TOLERANCE) >= ours.tokens:
        return ""
    return (
        f"expected a server that generated the {ours.tokens} tokens of these answers, seen {gained.generated} by its counter; do: see "
        "what answers at this address in its place"
    )


def _contradiction(by_client: float | None, by_server: float | None) -> str:
    if by_client is not None and by_server is not None and agree(by_client, by_server):
        return ""
    return (
        f"expected the client's clock and the server's within {TOLERANCE:.0%} of each other, seen {_said(by_client)} by the client and "
        f"{_said(by_server)} by the server's histogram; do: measure at the server itself, on a host that does nothing else, "
        "then again with longer answers (max_tokens)"
    )


def _said(rate: float | None) -> str:
    return "no time at all" if rate is None else f"{rate:.1f} tok/s"


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)
