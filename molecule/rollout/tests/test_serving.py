"""What goes on without a run: stopped for good, up again after a boot, given up."""

from __future__ import annotations

import time

import pytest
from fleet import HOSTS, another, look, on, until
from running import power_off, power_on, restart

BODY = "/srv/sparkfleet/models/sparkfleet-lab--stub-body/[0-9a-f]*"
STARTS = 4
"""Of a server within an hour: the first, and one after each of three ends."""


def test_stopped_stays_stopped_and_all_start_side_by_side(serving, run):
    stopped = run("stop").end()
    after = look()
    assert not stopped.failed, stopped.output
    for name in HOSTS:
        assert after[name].container["status"] == "exited"
        assert after[name].spec == serving[name].spec, "it is kept"
        assert after[name].state == serving[name].state

    restart("roll-2")
    power_off("roll-3")
    power_on("roll-3")
    assert [look([name])[name].container["status"] for name in ("roll-2", "roll-3")] == ["exited", "exited"]

    started = run("site", vllm_serve_extra_arguments=another(serving)).end()
    again = look(since=started.began)
    assert not started.failed, started.output
    assert all(again[name].passed() for name in HOSTS)
    # Nobody waits for a canary where nothing serves.
    assert max(again[name].at("start") for name in HOSTS) < min(again[name].recorded_at for name in HOSTS)


@pytest.mark.long
def test_after_a_boot_it_serves_again_by_itself_and_one_that_dies_at_every_start_is_given_up(serving, run):
    on("roll-1", f"touch $(echo {BODY})/die")
    booted = time.time()
    restart("roll-1", "roll-2")
    power_off("roll-3")
    power_on("roll-3")
    until(lambda: all(host.drafts is not None for host in look(["roll-2", "roll-3"]).values()))
    until(lambda: on("roll-1", "systemctl is-failed sparkfleet-vllm", check=False).strip() == "failed")
    assert (
        len(
            [event for event in look(["roll-1"], since=booted)["roll-1"].events if event["action"] == "start"]
        )
        == STARTS
    )
    time.sleep(12)  # longer than the unit pauses between two starts
    assert look(["roll-1"])["roll-1"].container["status"] == "exited"

    held = run("verify").end()
    after = look()
    assert held.failed and "mat1 and mat2 shapes cannot be multiplied" in held.output
    for name in ("roll-2", "roll-3"):
        assert held.row(name).endswith(" pass") and after[name].passed()
    assert all(after[name].state == serving[name].state for name in HOSTS)

    on("roll-1", f"rm {BODY}/die")
    mended = run("site", "--limit=roll-1").end()
    assert not mended.failed, mended.output
    assert look(["roll-1"])["roll-1"].passed()
