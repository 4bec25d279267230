"""A fleet that serves is changed, one host after the other: one goes back, and each can be taken back."""

from __future__ import annotations

from fleet import HOSTS, SCENARIO, another, digest, inventory, look

STUB = SCENARIO.parent / "lab/stub/recipe/stub.yml"


def untouched(before, after, names):
    """Not a second without the very process, and not a byte of what is recorded."""
    for name in names:
        assert after[name].serves == before[name].serves
        assert after[name].state == before[name].state
        assert after[name].events == []


def test_a_check_run_shows_exactly_the_argument_and_touches_nothing(serving, run):
    """Not a file, not a container, not an image of the whole host."""
    before = digest(["roll-3"])
    argv = serving["roll-3"].spec["argv"]
    was = int(argv[argv.index("--max-model-len") + 1])
    given = {"max-model-len": was // 2}
    if "--max-num-seqs" in argv:  # of an earlier test
        given["max-num-seqs"] = int(argv[argv.index("--max-num-seqs") + 1])
    looked = run("site", "--check", "--diff", "--limit=roll-3", vllm_serve_extra_arguments=given).end()
    assert not looked.failed, looked.output
    lines = [
        line
        for line in looked.output.splitlines()
        if line[:1] in ("+", "-") and line[:4] not in ("+++ ", "--- ")
    ]
    assert lines == [f"-argument --max-model-len {was}", f"+argument --max-model-len {was // 2}"], (
        looked.output
    )
    assert digest(["roll-3"]) == before
    untouched(serving, look(["roll-3"], since=looked.began), ["roll-3"])


def test_the_host_that_does_not_pass_goes_back_and_each_can_be_taken_back(serving, run, tmp_path):
    """Another image. The third host gets a draft that never agrees. Meanwhile a second run comes, is told who is at it, and leaves."""
    recipe = tmp_path / "stub-2.yml"
    recipe.write_text(
        STUB.read_text()
        .replace("name: stub\n", "name: stub-2\n")
        .replace("sparkfleet-lab/stub:1\n", "sparkfleet-lab/stub:2\n")
    )
    given = {
        "spark_recipe": str(recipe),
        "recipe_lock_dir": str(tmp_path),
        "vllm_serve_extra_arguments": another(serving),
    }
    never = {"vllm_serve_extra_environment": {"STUB_READY_AFTER": "0.3", "STUB_ACCEPTANCE": "0"}}
    change = run("site", inventories=[inventory(tmp_path / "third.yml", {"roll-3": never})], **given)
    change.when(lambda: look(["roll-1"])["roll-1"].serves != serving["roll-1"].serves)
    second = run("stop").end()
    change.end()
    after = look(since=change.began)
    assert second.failed
    assert f"process {change.process.pid}" in second.output and "since 20" in second.output

    assert change.failed
    for name in ("roll-1", "roll-2"):
        assert after[name].passed() and after[name].spec["image"] != serving[name].spec["image"]
        assert "pass" in change.row(name)
        # The old server was there until its turn, and nothing happened to it twice. Nobody stopped another one.
        assert [event["action"] for event in after[name].events].count("die") == 1
        # What the table says a host was away is what its engine saw, and little of what the whole change took.
        away = after[name].recorded_at - after[name].at("die")
        assert 0 < change.window(name) <= away + 1
        assert change.window(name) < (change.ended - change.began) / 2
    assert after["roll-1"].recorded_at < after["roll-2"].at("die")
    assert after["roll-2"].recorded_at < after["roll-3"].at("die")
    third = after["roll-3"]
    assert [event["action"] for event in third.events].count("start") == 2, "it was changed, and changed back"
    assert third.serves != serving["roll-3"].serves
    assert third.spec == serving["roll-3"].spec
    assert third.state == serving["roll-3"].state
    assert third.passed(), "it was measured again"
    assert "accept" in change.output and "drafts_never_accepted" in change.output
    assert "olled back" in change.output

    # By hand, on one host alone.
    one = run("rollback", "--limit=roll-2").end()
    back = look(since=one.began)
    assert not one.failed, one.output
    assert back["roll-2"].spec == serving["roll-2"].spec and back["roll-2"].passed()
    untouched(after, back, ["roll-1", "roll-3"])

    # With the cause gone the next run goes on where this one ended.
    mended = run("site", **given).end()
    then = look(since=mended.began)
    assert not mended.failed, mended.output
    untouched(after, then, ["roll-1"])
    assert all(host.passed() for host in then.values())
    assert len({(then[name].spec["name"], *then[name].spec["argv"]) for name in HOSTS}) == 1
