"""What goes on without a run: back by hand, stopped for good, up again after a boot."""

from __future__ import annotations

import time

from fleet import HOSTS, another, look, on, power_off, power_on, restart, until

BODY = "/srv/sparkfleet/models/sparkfleet-lab--stub-body/[0-9a-f]*"


def test_back_by_hand_on_one_host_and_on_all(serving, run):
    arguments = another(serving)
    changed = run("site", vllm_serve_extra_arguments=arguments, spark_rollout_batches=["100%"]).end()
    assert not changed.failed, changed.output
    before = look()

    one = run("rollback", "--limit=roll-2").end()
    after = look(since=one.began)
    assert not one.failed, one.output
    assert after["roll-2"].spec == serving["roll-2"].spec and after["roll-2"].passed()
    for name in set(HOSTS) - {"roll-2"}:
        assert (after[name].serves, after[name].state) == (before[name].serves, before[name].state)

    # Back for all is back for each: where one was taken back already, that is undone.
    every = run("rollback", spark_rollout_batches=[2, "100%"]).end()
    back = look(since=every.began)
    assert not every.failed, every.output
    for name in HOSTS:
        assert back[name].spec == (before if name == "roll-2" else serving)[name].spec
        assert back[name].passed()
    assert max(back[name].recorded_at for name in HOSTS[:2]) < min(back[name].at("die") for name in HOSTS[2:])


def test_stopped_stays_stopped_and_all_start_side_by_side(serving, run):
    stopped = run("stop").end()
    after = look()
    assert not stopped.failed, stopped.output
    for name in HOSTS:
        assert after[name].container["status"] == "exited"
        assert after[name].spec == serving[name].spec, "it is kept"
        assert after[name].state == serving[name].state

    restart("roll-2")
    power_off("roll-4")
    power_on("roll-4")
    assert [look([name])[name].container["status"] for name in ("roll-2", "roll-4")] == ["exited", "exited"]

    started = run("site", vllm_serve_extra_arguments=another(serving)).end()
    again = look(since=started.began)
    assert not started.failed, started.output
    assert all(again[name].passed() for name in HOSTS)
    # Nobody waits for a canary where nothing serves.
    assert max(again[name].at("start") for name in HOSTS) < min(again[name].recorded_at for name in HOSTS)


def test_after_a_boot_it_serves_again_by_itself(serving, run):
    restart("roll-2")
    power_off("roll-4")
    power_on("roll-4")
    until(lambda: all(host.drafts is not None for host in look(["roll-2", "roll-4"]).values()))
    held = run("verify").end()
    after = look()
    assert not held.failed, held.output
    assert all(after[name].passed() for name in HOSTS)
    assert all(after[name].state == serving[name].state for name in HOSTS)
    assert all(after[name].serves == serving[name].serves for name in ("roll-1", "roll-3", "roll-5"))


def test_a_server_that_dies_at_every_start_is_given_up(serving, run):
    on("roll-5", f"touch $(echo {BODY})/die")
    restart("roll-5")
    bound = serving["roll-5"].spec["host"]["RestartPolicy"]["MaximumRetryCount"]

    def given_up() -> bool:
        seen = look(["roll-5"])["roll-5"].container
        return bool(seen["status"] == "exited" and seen["restarts"] == bound)

    until(given_up)
    time.sleep(5)  # longer than any pause between two restarts was
    assert given_up() and bound > 0
    held = run("verify", "--limit=roll-5").end()
    assert held.failed and "mat1 and mat2 shapes cannot be multiplied" in held.output

    on("roll-5", f"rm {BODY}/die")
    mended = run("site", "--limit=roll-5").end()
    assert not mended.failed, mended.output
    assert look(["roll-5"])["roll-5"].passed()
