"""A run where nothing has changed measures and looks no further; what is asked for otherwise calls for a whole look."""

from __future__ import annotations

import re
import subprocess

import pytest
from spark import NAME, on, playbook, serves
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


def because(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The parts that a run found to be otherwise, and looked at everything for."""
    said = re.search(r"^drifts: to be looked at, because of (.+)$", done.stdout, re.MULTILINE)
    return set(said[1].split(", ")) if said else set()


@pytest.fixture
def settled() -> None:
    """Three runs at most: one that mends what the tests before have left, one that sees nothing to do, a quick one."""
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

    def test_a_server_that_got_worse_is_measured_all_the_same(self):
        on(f"docker exec {NAME} touch /tmp/never")
        done = playbook("site")
        on(f"docker exec {NAME} rm /tmp/never")
        assert done.returncode != 0 and MEASURE in done.stdout and LOOK not in done.stdout, done.stdout
        assert re.search(r"^drifts\s.*\s0\.0%\s", done.stdout, re.MULTILINE), done.stdout

    def test_what_was_edited_by_hand_is_named_and_mended(self):
        edits = {
            "packages": "touch /var/lib/dpkg/status",
            "files": "touch /etc/docker/daemon.json",
            "models": "touch $(find /srv/sparkfleet/models -name config.json | head -n 1)",
            "boot unit": f"systemctl disable --quiet {NAME}",
            "container": f"docker stop --time 5 {NAME}",
        }
        on("\n".join(edits.values()))
        done = site()
        assert looks(done) and because(done) == set(edits), done.stdout
        assert changed(done)
        serves()
        assert on(f"systemctl is-enabled {NAME}").strip() == "enabled"
        assert looks(site()), "nothing to do, as it turns out"
        assert not looks(site())

    def test_a_whole_look_can_be_had_and_the_next_run_is_quick_again(self):
        done = site(spark_look_again=True)
        assert looks(done) and not because(done) and not changed(done)
        assert not looks(site())
