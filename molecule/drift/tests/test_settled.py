"""A run where nothing has changed measures and looks no further; what is asked for otherwise calls for a whole look.

One story, told by a run of site.yml each: edited by hand, mended, proved, measured. In the end there is no drift.
"""

from __future__ import annotations

import re
import subprocess

import pytest
import testing
from edits import ASIDE, AT_ONCE, MODELS, NAME, SERVES, edit
from spark import DIGEST, HOST, because, clean, drift, on, playbook, recorded

Run = subprocess.CompletedProcess[str]
LOOK, MEASURE = "Inspect and judge the host in one execution", "playbooks/tasks/measure.yml"
EDITS = {
    "packages": "touch /var/lib/dpkg/status",
    "files": "touch /etc/docker/daemon.json",
    "models": "touch $(find /srv/sparkfleet/models -name config.json | head -n 1)",
    "unit": f"systemctl disable --quiet {NAME}",
    "container": f"docker stop -t 5 {NAME}",
}
PUT_BACK = {"kernel and driver", "Python environment", "patches", "records"}
"""Edited by the tests of drift, and as it was, but for its times."""

MENDED_BY_A_RUN = edit(
    "engine and record",
    """
        sed -i 's/172.31.250.10:5000/192.0.2.1:5000/' /etc/docker/daemon.json
        rm /var/lib/sparkfleet/state.json
    """,
    ":",
)


def site(*options: str, **extra: object) -> Run:
    done = playbook("site", *options, **extra)
    assert done.returncode == 0, done.stdout + done.stderr
    # Its lock is given back when it has ended, which may be a moment later.
    testing.until(lambda: "run.json" not in on("ls /var/lib/sparkfleet"))
    return done


def looks(done: Run) -> bool:
    """Whether it looked at everything."""
    assert (LOOK in done.stdout) is not (MEASURE in done.stdout), done.stdout
    return LOOK in done.stdout


def changed(done: Run) -> bool:
    return re.search(r"changed=0\b", done.stdout) is None


@pytest.fixture(scope="module")
def mended() -> Run:
    """A run after what it had left was edited by hand."""
    on("\n".join(EDITS.values()))
    return site()


@pytest.fixture(scope="module")
def proved(mended: Run) -> Run:
    """A run that has nothing to do, as it turns out."""
    return site()


def test_what_was_edited_by_hand_is_named_and_mended(mended):
    assert looks(mended) and because(mended) - PUT_BACK == set(EDITS), mended.stdout
    assert changed(mended)
    on(SERVES)
    assert on(f"systemctl is-enabled {NAME}").strip() == "enabled"


def test_what_was_mended_is_looked_at_once_more(proved):
    assert looks(proved) and not because(proved) and not changed(proved)


@pytest.mark.usefixtures("proved")
class TestWhereNothingHasChanged:
    def test_a_whole_look_can_be_had(self):
        done = site(spark_look_again=True)
        assert looks(done) and not because(done) and not changed(done)

    def test_the_server_is_measured_and_the_host_stays_as_it_is(self):
        before = on(DIGEST)
        done = site()
        assert not looks(done) and not changed(done)
        assert "drifts: unchanged since nothing was to be done" in done.stdout
        assert re.search(r"^drifts\s.*\spass$", done.stdout, re.MULTILINE), done.stdout
        assert on(DIGEST) == before

    def test_a_server_that_got_worse_is_measured_all_the_same(self):
        on(f"docker exec {NAME} touch /tmp/never")
        done = playbook("site")
        on(f"docker exec {NAME} rm /tmp/never")
        assert done.returncode != 0 and not looks(done), done.stdout
        assert re.search(r"^drifts\s.*\s0\.0%\s", done.stdout, re.MULTILINE), done.stdout

    def test_another_question_and_a_lock_of_somebody_else_are_not_passed_by(self):
        on("touch /var/lib/sparkfleet/run.json")
        done = playbook("site", vllm_serve_acceptance_floor=1)
        on("rm /var/lib/sparkfleet/run.json")
        assert because(done) == {"what is asked for", "a run that holds the host"}, done.stdout
        assert done.returncode != 0 and MEASURE not in done.stdout, done.stdout
        assert "expected no other run on this host" in done.stdout


@pytest.mark.usefixtures("proved")
def test_a_model_that_is_mended_under_its_server_is_the_one_that_it_serves():
    """It runs on with the directory of before, and only a new start gives it the new one."""
    started = f"docker inspect --format '{{{{ .State.StartedAt }}}}' {NAME}"
    before = on(started)
    on(f"file=$(ls {recorded()['models']['body']['path']}/*.safetensors | head -n 1); printf x >>$file")
    assert changed(site())
    assert on(started) != before
    clean(drift())


@pytest.mark.usefixtures("proved")
def test_a_program_edited_inside_the_container_is_gone_after_a_run_that_looks():
    edit = f"docker exec {NAME} sed -i '$a # tried something' /opt/stub/server.py"
    made = f"docker inspect --format '{{{{ .Id }}}}' {NAME}"
    before = on(f"{edit}; {made}")
    assert changed(site(spark_look_again=True))
    assert on(made) != before
    clean(drift())


@pytest.mark.usefixtures("proved")
def test_whatever_drift_finds_one_run_mends_or_drift_says_how():
    """All that people did to the server, its models, its unit, its record and its engine, at once."""
    record = recorded()
    by_hand = {"boot: boot-unit-changed": "systemctl revert"}
    on("\n".join([MENDED_BY_A_RUN.do(record), MODELS.do(record), *(each.do(record) for each in AT_ONCE[:2])]))
    assert {
        "container: image",
        "models: model-missing",
        "engine: daemon-json",
        "boot: boot-unit-disabled",
    } < drift().kinds.keys()
    assert changed(site())
    report = drift()
    assert report.kinds.keys() == by_hand.keys(), report.output
    for finding in report.host["findings"]:
        assert by_hand[f"{finding['subject']}: {finding['kind']}"] in finding["do"]
    on(f"systemctl revert {NAME}; docker rm --force {ASIDE}")
    site()
    clean(drift())


@pytest.mark.usefixtures("mended")
def test_a_host_that_was_mended_and_has_booted_shows_no_drift_and_is_not_touched():
    testing.boot(HOST)
    on(SERVES)
    before = on(DIGEST)
    report = drift()
    clean(report)
    assert report.code == 0
    assert on(DIGEST) == before
