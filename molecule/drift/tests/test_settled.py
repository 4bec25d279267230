"""A run where nothing has changed measures and looks no further; whatever is edited calls for a whole look."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import pytest
import spark
from spark import NAME, TARGET, on, playbook
from test_drift import DIGEST

LOOK, MEASURE = "Gather and judge in one execution", "playbooks/tasks/measure.yml"
BODY = "/srv/sparkfleet/models/sparkfleet-lab--stub-body/*/config.json"


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

    def test_a_server_that_no_longer_passes_fails_the_run(self):
        """Something lies over the patch inside the container, where no look from outside would see it."""
        inside = f"nsenter --mount --target $(docker inspect --format '{{{{.State.Pid}}}}' {NAME})"
        on(f"{inside} mount --bind /etc/hostname {TARGET}")
        done = playbook("site")
        on(f"{inside} umount {TARGET}")
        assert done.returncode != 0 and MEASURE in done.stdout, done.stdout
        assert "patch_not_applied" in done.stdout

    def test_another_input_is_another_question(self):
        done = playbook("site", vllm_serve_acceptance_floor=1)
        assert done.returncode != 0 and LOOK in done.stdout, done.stdout
        assert "acceptance_below_floor" in done.stdout

    def test_a_lock_of_somebody_else_is_not_passed_by(self):
        on("mkdir -p /var/lib/sparkfleet; touch /var/lib/sparkfleet/run.json")
        done = playbook("site")
        on("rm -f /var/lib/sparkfleet/run.json")
        assert MEASURE not in done.stdout, done.stdout

    def test_it_looks_when_it_is_told_to(self):
        assert looks(site(spark_look_again=True))
        assert not looks(site())


EDITS: dict[str, tuple[str, Callable[[], object]]] = {
    "a model file with the same bytes": ("models", lambda: on(f"touch {BODY}")),
    "daemon.json": ("files", lambda: on("echo >>/etc/docker/daemon.json")),
    "a stopped server": ("container", lambda: on(f"docker stop --time 5 {NAME}")),
    "a disabled unit": ("boot unit", lambda: on(f"systemctl disable --quiet {NAME}")),
    "a package": ("packages", lambda: on("touch /var/lib/dpkg/status")),
}


@pytest.mark.usefixtures("settled")
def test_what_was_edited_is_named_and_looked_at():
    """All at once, since a run for each would only take longer; each by itself is a unit test."""
    for _, edit in EDITS.values():
        edit()
    done = site()
    assert looks(done) and changed(done)
    said = re.search(r"drifts: to be looked at, because of (.*)", done.stdout)
    assert said and {name for name, _ in EDITS.values()} <= set(said[1].split(", ")), done.stdout
    spark.serves()
    assert on(f"systemctl is-enabled {NAME}").strip() == "enabled"
