"""A fleet that serves is changed: a few hosts first, and no further than what passed."""

from __future__ import annotations

from fleet import HOSTS, SCENARIO, another, digest, docker, inventory, look, power_on, until

STUB = SCENARIO.parent / "lab/stub/recipe/stub.yml"


def untouched(before, after, names):
    """Not a second without the very process, and not a byte of what is recorded."""
    for name in names:
        assert after[name].serves == before[name].serves
        assert after[name].state == before[name].state
        assert after[name].events == []


def test_a_canary_then_a_share_then_all_others_side_by_side(serving, run):
    """Meanwhile a second run comes, is told who is at it, and leaves."""
    arguments = another(serving)
    change = run("site", vllm_serve_extra_arguments=arguments)
    change.when(lambda: look(["roll-1"])["roll-1"].serves != serving["roll-1"].serves)
    second = run("site", vllm_serve_extra_arguments=another(serving, 2)).end()
    during = look()
    assert change.end().failed is False, change.output
    after = look(since=change.began)

    assert second.failed
    assert all(words in second.output for words in (f"process {change.process.pid}", "since 20")), (
        second.output
    )
    assert all(during[name].spec != after[name].spec for name in HOSTS[2:])

    for name in HOSTS:
        assert after[name].passed(), name
        assert after[name].spec["argv"][-1] == str(arguments["max-num-seqs"])
        # The old server was there until its turn, and nothing happened to it twice.
        assert [
            event["action"] for event in after[name].events if event["id"] == serving[name].serves[0]
        ].count("die") == 1
    ends = {name: after[name].at("die") for name in HOSTS}
    passes = {name: after[name].recorded_at for name in HOSTS}
    # [1, '25%', '100%'] of five is one, one, three.
    assert passes["roll-1"] < ends["roll-2"] < passes["roll-2"] < min(ends[name] for name in HOSTS[2:])
    assert max(ends[name] for name in HOSTS[2:]) < min(passes[name] for name in HOSTS[2:])
    # What the table says a host was away is what its engine saw, and little of what the whole change took.
    for name in HOSTS:
        assert 0 < change.window(name) <= passes[name] - ends[name] + 1
        assert change.window(name) < (change.ended - change.began) / 2


def test_a_check_run_shows_exactly_the_argument_and_touches_nothing(serving, run):
    assert len({tuple(host.spec["argv"]) for host in serving.values()}) == 1
    before = digest()
    argv, arguments = serving["roll-1"].spec["argv"], another(serving)
    was, will = (
        f"argument --max-num-seqs {argv[argv.index('--max-num-seqs') + 1]}",
        f"argument --max-num-seqs {arguments['max-num-seqs']}",
    )
    looked = run("site", "--check", "--diff", vllm_serve_extra_arguments=arguments).end()
    assert not looked.failed, looked.output
    lines = [
        line
        for line in looked.output.splitlines()
        if line[:1] in ("+", "-") and line[:4] not in ("+++ ", "--- ")
    ]
    assert sorted(lines) == [f"+{will}"] * len(HOSTS) + [f"-{was}"] * len(HOSTS), looked.output
    assert digest() == before
    untouched(serving, look(since=looked.began), HOSTS)


def test_a_host_that_does_not_pass_goes_back_and_no_other_is_touched(serving, run, tmp_path):
    """Another image, in batches of one, two and the rest. The third host gets a draft that never agrees."""
    recipe = tmp_path / "stub-2.yml"
    recipe.write_text(
        STUB.read_text()
        .replace("name: stub\n", "name: stub-2\n")
        .replace("sparkfleet-lab/stub:1\n", "sparkfleet-lab/stub:2\n")
    )
    given = {
        "spark_recipe": str(recipe),
        "recipe_lock_dir": str(tmp_path),
        "spark_rollout_batches": [1, 2, "100%"],
        "vllm_serve_extra_arguments": another(serving),
    }
    never = {"vllm_serve_extra_environment": {"STUB_READY_AFTER": "0.3", "STUB_ACCEPTANCE": "0"}}
    change = run("site", inventories=[inventory(tmp_path / "third.yml", {"roll-3": never})], **given).end()
    after = look(since=change.began)
    assert change.failed

    for name in ("roll-1", "roll-2"):
        assert after[name].passed() and after[name].spec["image"] != serving[name].spec["image"]
        assert "pass" in change.row(name)
    third = after["roll-3"]
    assert [event["action"] for event in third.events].count("start") == 2, "it was changed, and changed back"
    assert third.serves != serving["roll-3"].serves
    assert third.spec == serving["roll-3"].spec
    assert third.state == serving["roll-3"].state
    assert third.passed(), "it was measured again"
    assert "accept" in change.output and "drafts_never_accepted" in change.output
    assert "olled back" in change.output
    untouched(serving, after, ["roll-4", "roll-5"])
    assert all("untouched" in change.row(name) for name in ("roll-4", "roll-5"))

    # With the cause gone the next run goes on where this one ended.
    mended = run("site", **given).end()
    after_that = look(since=mended.began)
    assert not mended.failed, mended.output
    untouched(after, after_that, ["roll-1", "roll-2"])
    assert all(after_that[name].passed() for name in HOSTS)
    assert len({(after_that[name].spec["name"], *after_that[name].spec["argv"]) for name in HOSTS}) == 1


def test_a_canary_that_is_lost_ends_the_rollout(serving, run):
    arguments = another(serving)
    change = run("site", vllm_serve_extra_arguments=arguments)
    change.when(
        lambda: "die" in [event["action"] for event in look(["roll-1"], since=change.began)["roll-1"].events]
    )
    docker("kill", "sparkfleet-lab-roll-1")
    change.end()
    after = look(HOSTS[1:], since=change.began)
    assert change.failed
    untouched(serving, after, HOSTS[1:])
    assert all("untouched" in change.row(name) for name in HOSTS[1:])
    assert "pass" not in change.row("roll-1")

    power_on("roll-1")
    assert look(["roll-1"])["roll-1"].state == serving["roll-1"].state
    again = run("site", vllm_serve_extra_arguments=arguments).end()
    assert not again.failed, again.output
    until(lambda: all(host.passed() for host in look().values()))
