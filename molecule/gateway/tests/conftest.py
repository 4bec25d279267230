"""What the tests of this scenario begin with: a fleet that serves behind its gateways."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import running
from gates import GATES, SCENARIO, SPARKS, all_up
from testing import until


@pytest.fixture
def run() -> Iterator[Callable[..., running.Run]]:
    yield from running.runs(SCENARIO / "inventory")


@pytest.fixture
def serving(run: Callable[..., running.Run]) -> None:
    """Whatever became of it before. What lost its power comes back by itself."""
    running.power_on(*SPARKS, *GATES)
    try:
        until(all_up, within=60)
    except AssertionError:
        done = run("site").end()
        assert not done.failed, done.output
        until(all_up)
