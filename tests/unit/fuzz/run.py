# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every parser of outside text against what may come, in a process of its own: it is ended when an input takes too long or too much.

    run.py seconds 60 [NAME …]    random inputs, for that long each: `make fuzz`
    run.py inputs 60 [NAME …]     so many each, the same ones every time: the unit tests

Prints a line a parser: inputs, distinct crashes, seconds, the slowest input. Then each crash with the smallest input found.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import conftest  # noqa: F401  makes the collection importable
from fuzz.parsers import PARSERS, Parser
from hypothesis import HealthCheck, Phase, given, settings

TOO_LONG = 8
"""Seconds of processor time for one input."""
MEMORY = 2_500_000_000
AT_ONCE = 200
"""Inputs between two looks at the clock."""


class Slow(BaseException):
    """An input took too long."""


@dataclass
class Outcome:
    inputs: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    crashes: dict[str, Any] = field(default_factory=dict)
    """{exception and where it arose: the smallest input}"""


def fuzz(parser: Parser, inputs: int, seconds: float, fixed: bool) -> Outcome:
    """So many inputs at a time, until the seconds are over."""
    outcome = Outcome()

    def one(value: Any) -> None:
        start = time.process_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, TOO_LONG)
        try:
            parser.hold(value)
        except (Exception, Slow) as error:
            where = _where(error)
            known = outcome.crashes.get(where)
            if known is None or len(repr(value)) < len(repr(known)):
                outcome.crashes[where] = value
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            outcome.inputs += 1
            outcome.slowest = max(outcome.slowest, time.process_time() - start)

    tried = settings(
        max_examples=inputs,
        derandomize=fixed,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )(given(parser.inputs)(one))
    began = time.monotonic()
    while not outcome.inputs or outcome.seconds < seconds:
        tried()
        outcome.seconds = time.monotonic() - began
    return outcome


def _where(error: BaseException) -> str:
    """The exception, and the line of the collection that it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/plugins/" in frame.filename]
    place = f"{frames[-1].filename.partition('/plugins/')[2]}:{frames[-1].lineno}" if frames else "the test"
    return (
        f"{type(error).__name__} at {place}: {error!s:.80}"
        if isinstance(error, Slow)
        else f"{type(error).__name__} at {place}"
    )


def _slow(_signal: int, _frame: FrameType | None) -> None:
    raise Slow(f"more than {TOO_LONG} s")


def main() -> int:
    how, many, names = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    fixed = how == "inputs"
    inputs, seconds = (int(many), 0.0) if fixed else (AT_ONCE, many)
    signal.signal(signal.SIGVTALRM, _slow)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    chosen = [parser for parser in PARSERS if not names or any(name in parser.name for name in names)]
    print(f"{'parser':40} {'inputs':>9} {'crashes':>8} {'seconds':>8} {'slowest':>8}")
    found: dict[str, Outcome] = {}
    for parser in chosen:
        outcome = found[parser.name] = fuzz(parser, inputs, seconds, fixed)
        print(
            f"{parser.name:40} {outcome.inputs:9,} {len(outcome.crashes):8} {outcome.seconds:8.1f} {outcome.slowest:8.3f}",
            flush=True,
        )
    for name, outcome in found.items():
        for where, value in outcome.crashes.items():
            print(f"\n{name}: {where}\n    {value!r:.400}")
    crashes = sum(len(outcome.crashes) for outcome in found.values())
    print(f"\n{sum(outcome.inputs for outcome in found.values()):,} inputs, {crashes} crashes")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
