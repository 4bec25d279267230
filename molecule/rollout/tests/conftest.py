"""What the tests of this scenario begin with: a fleet that serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import fleet
import pytest
import running


@pytest.fixture
def run() -> Iterator[Callable[..., running.Run]]:
    """Starts playbooks; none outlives its test."""
    yield from fleet.runs()


@pytest.fixture
def serving(run: Callable[..., running.Run]) -> dict[str, fleet.Seen]:
    """The hosts as they are: each serves what is recorded there, whatever became of them before."""
    running.power_on(*fleet.HOSTS)
    seen = fleet.look()
    if not all(host.state and host.runs_recorded for host in seen.values()):
        done = run("site").end()
        assert not done.failed, done.output
        seen = fleet.look()
    return seen
