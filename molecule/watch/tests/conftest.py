"""What the tests of this scenario begin with: a fleet that serves, whatever became of it before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gateways
import pytest
import running
from fleet import AT, GATE, KEY, POOL, SCENARIO, SPARKS, all_up
from streams import Address
from testing import until
from watched import forgotten, watched


@pytest.fixture
def run() -> Iterator[Callable[..., running.Run]]:
    yield from running.runs(SCENARIO / "inventory")


@pytest.fixture
def serving(run: Callable[..., running.Run]) -> None:
    """Nothing that a test has done before counts."""
    if not all(watched(spark) for spark in SPARKS):
        done = run("site").end()
        assert not done.failed, done.output
    forgotten(*SPARKS)
    until(all_up)


@pytest.fixture
def address() -> Address:
    return gateways.address(GATE, AT, KEY, POOL)
