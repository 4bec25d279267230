"""A run where nothing has changed measures and looks no further; what is asked for otherwise calls for a whole look."""

from __future__ import annotations

import re
import subprocess

import pytest
from spark import on, playbook
from test_drift import DIGEST

LOOK, MEASURE = "Gather and judge in one execution", "playbooks/tasks/measure.yml"


def site(*options: str, **extra: object) -> subprocess.CompletedProcess[str]:
    done = playbook("site", *options, **extra)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def looks(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether it looked at everything."""
    assert (LOOK in done.stdout) is not (MEASURE in done.stdout), done.stdout
    return LOOK in done.stdout


def changed(done: subprocess.CompletedProcess[str]) -> bool:
    return re.search(r"changed=0\b", done.stdout) is None


@pytest.fixture
def settled() -> None:
    """Two runs at most: one that mends what the tests before have left, one that sees nothing to do."""
    assert any(not looks(site()) for _ in range(3))


@pytest.mark.usefixtures("settled")
class TestWhereNothingHasChanged:
    def test_the_server_is_measured_and_the_host_stays_as_it_is(self):
        before = on(DIGEST)
        done = site()
        assert not looks(done) and not changed(done)
        assert "drifts: unchanged since nothing was to be done" in done.stdout
        assert re.search(r"^drifts\s.*\spass$", done.stdout, re.MULTILINE), done.stdout
        assert on(DIGEST) == before

    def test_another_input_is_another_question(self):
        done = playbook("site", vllm_serve_acceptance_floor=1)
        assert done.returncode != 0 and LOOK in done.stdout, done.stdout
        assert "acceptance_below_floor" in done.stdout

    def test_a_lock_of_somebody_else_is_not_passed_by(self):
        on("mkdir -p /var/lib/sparkfleet; touch /var/lib/sparkfleet/run.json")
        done = playbook("site")
        on("rm -f /var/lib/sparkfleet/run.json")
        assert MEASURE not in done.stdout, done.stdout
