from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._prune import references as prune_references
from ansible_collections.sparkfleet.vllm.plugins.module_utils._prune.references import (
    COLUMNS,
    PruneError,
    References,
    Thing,
    content_names,
    familiar,
    freed,
    judge_images,
    judge_store,
    refer_containers,
    refer_keep,
    refer_state,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._prune.usage import Usage

ONE, TWO, THREE = "a" * 40, "b" * 40, "c" * 40
SUM = "d" * 64
STORE = "/srv/sparkfleet"
NOW = 1_000_000.0
DAY = 86400.0


def snapshot(commit: str = ONE, **more: object) -> Thing:
    return Thing("snapshot", f"o/n@{commit}", f"{STORE}/models/o--n/{commit}", commit, **more)  # type: ignore[arg-type]


def judged(thing: Thing, references: References | None = None, peer: str = "", mounts: tuple[str, ...] = ()):
    (result,) = judge_store([thing], references or References(), peer, mounts, DAY, NOW)
    return result.verdict, result.why


def serving(commit: str) -> dict[str, object]:
    return {
        "serving": {"models": {"body": {"path": f"/elsewhere/models/o--n/{commit}", "mount": "/models/n"}}}
    }


def container(**more: object) -> dict[str, object]:
    return {"Id": "e" * 64, "Names": ["/server"], "Image": "x", "ImageID": "sha256:1", "Mounts": [], **more}


def containers(
    *given: dict[str, object], overlooked: tuple[str, ...] = (), volumes: dict[str, str] | None = None
) -> References:
    references = References()
    refer_containers(references, given, volumes or {}, STORE, overlooked, lambda path: path)
    return references


# Who refers to what


def test_a_content_name_is_found_wherever_it_stands_and_a_piece_of_one_is_none():
    data = {"a": [f"/x/{ONE}/y", {"image": f"n@sha256:{SUM}"}], TWO: 1, "n": None, "short": "f" * 39}
    assert content_names(data) == {ONE, TWO, SUM}
    assert content_names("f" * 41) == content_names("f" * 65) == set()


def test_current_and_last_good_are_both_kept_and_named():
    references = References()
    refer_state(references, {"version": 1, "current": serving(ONE), "last_good": serving(TWO)}, "s")
    assert judged(snapshot(ONE), references) == ("kept", "current")
    assert judged(snapshot(TWO), references) == ("kept", "last_good")
    assert judged(snapshot(THREE), references) == ("removed", "nothing refers to it")


def test_what_both_name_says_so():
    references = References()
    refer_state(references, {"version": 1, "current": serving(ONE), "last_good": serving(ONE)}, "s")
    assert judged(snapshot(ONE), references) == ("kept", "current, last_good")


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ([], "version None"),
        ({"version": 2, "current": serving(ONE)}, "version 2"),
        ({"version": 1}, "current without"),
        ({"version": 1, "current": None, "last_good": serving(ONE)}, "current without"),
        ({"version": 1, "current": {"serving": {}}}, "current without"),
        ({"version": 1, "current": serving(ONE), "last_good": {"gate": {}}}, "last_good without"),
    ],
)
def test_a_state_that_does_not_say_what_serves_is_refused(state, seen):
    with pytest.raises(PruneError, match=f"/s.json: expected .*seen {seen}.*nothing was removed"):
        refer_state(References(), state, "/s.json")


def test_keep_takes_a_name_in_any_form_and_refuses_what_would_keep_nothing():
    references = References()
    refer_keep(references, [ONE, f"x/y@sha256:{SUM}"])
    assert set(references.names) == {ONE, SUM}
    with pytest.raises(PruneError, match="'latest'"):
        refer_keep(references, ["latest"])


@pytest.mark.parametrize("inside", ["", "/config.json", "/deep/er"])
def test_what_a_container_mounts_is_kept_whatever_it_is_called(inside):
    thing = Thing("leftover", "x", f"{STORE}/models/o--n/.pruned-x")
    references = containers(container(Mounts=[{"Source": thing.path + inside}]))
    assert judged(thing, references) == ("kept", "container server")


@pytest.mark.parametrize("around", [f"{STORE}/models/o--n", STORE, "/srv", "/"])
def test_a_mount_around_it_keeps_it(around):
    references = containers(container(Mounts=[{"Source": around}]))
    assert judged(snapshot(), references) == ("kept", f"container server, which mounts {around}")


def test_a_mount_beside_it_does_not():
    thing = Thing("leftover", "x", f"{STORE}/models/o--n/.pruned-x")
    beside = [{"Source": f"{thing.path}y"}, {"Source": f"{STORE}/cache/vllm"}, {"Source": ""}]
    assert judged(thing, containers(container(Mounts=beside)))[0] == "removed"


@pytest.mark.parametrize(
    ("around", "verdict"), [("/", "removed"), (STORE, "removed"), (f"{STORE}/models", "kept")]
)
def test_an_overlooked_container_may_hold_the_whole_store_and_no_part_of_it(around, verdict):
    references = containers(container(Mounts=[{"Source": around}]), overlooked=("server",))
    assert judged(snapshot(), references)[0] == verdict


def test_a_volume_stands_for_the_directory_it_was_made_of():
    mounts = [{"Type": "volume", "Name": "v", "Source": "/var/lib/docker/volumes/v/_data"}]
    references = containers(container(Mounts=mounts), volumes={"v": snapshot().path})
    assert judged(snapshot(), references) == ("kept", "container server")


def test_links_on_the_way_to_a_mount_are_seen_through():
    references = References()
    given = [container(Mounts=[{"Source": "/link"}])]
    refer_containers(references, given, {}, STORE, (), {"/link": snapshot().path}.__getitem__)
    assert judged(snapshot(), references)[0] == "kept"


def test_what_a_container_only_names_is_kept_too():
    references = containers(container(Command=f"vllm serve /store/models/o--n/{ONE}"))
    assert judged(snapshot(), references) == ("kept", "container server")


def test_a_container_without_a_name_is_told_by_its_id():
    references = containers(container(Names=None, Mounts=[{"Source": snapshot().path}]))
    assert judged(snapshot(), references) == ("kept", f"container {'e' * 12}")


# Verdicts


def partial(age: float) -> Thing:
    return Thing("partial", "x", f"{STORE}/models/o--n/.partial-{ONE}", ONE, Usage(newest=NOW - age))


def test_a_partial_snapshot_is_kept_for_a_while():
    assert judged(partial(DAY - 1))[0] == "kept"
    assert "24 h" in judged(partial(DAY - 1))[1]
    assert judged(partial(DAY + 1)) == ("removed", "nothing refers to it")


def test_an_old_partial_snapshot_of_what_is_locked_is_kept():
    references = References()
    references.refer("lock", {"commit": ONE})
    assert judged(partial(DAY + 1), references) == ("kept", "lock")


@pytest.mark.parametrize(("age", "verdict"), [(DAY - 1, "kept"), (DAY + 1, "removed")])
def test_what_is_on_its_way_into_the_registry_is_kept_for_a_while(age, verdict):
    assert (
        judged(Thing("registry partial", "x", f"{STORE}/registry", usage=Usage(newest=NOW - age)))[0]
        == verdict
    )


def test_who_names_a_part_refers_to_the_whole():
    references = References()
    references.refer("current", f"n@sha256:{SUM}")
    thing = Thing("registry", "x", f"{STORE}/registry/x", "9" * 64, members=["9" * 64, SUM])
    assert judged(thing, references) == ("kept", "current")


def test_while_models_are_fanned_out_none_goes_and_patches_do():
    assert judged(snapshot(), peer="process 7")[0] == "kept"
    assert judged(partial(DAY + 1), peer="process 7")[0] == "kept"
    assert judged(Thing("patch", "x", f"{STORE}/patches/{SUM}", SUM), peer="process 7")[0] == "removed"


def test_what_holds_a_mount_of_the_host_stays():
    assert judged(snapshot(), mounts=("/", snapshot().path + "/disk")) == (
        "kept",
        f"something is mounted on {snapshot().path}/disk",
    )


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("unknown", "unknown"),
        ("cache", "removed"),
        ("answers", "kept"),
        ("log", "kept"),
        ("registry", "removed"),
        ("leftover", "removed"),
    ],
)
def test_other_kinds(kind, verdict):
    assert judged(Thing(kind, "x", f"{STORE}/x"))[0] == verdict


# Images

IMAGE = f"vllm/vllm-openai@sha256:{SUM}"


def listed(**more: object) -> dict[str, object]:
    return {"Id": "sha256:1", "RepoDigests": [IMAGE], "RepoTags": None, "Size": 100, **more}


def image(
    found: dict[str, object],
    *users: dict[str, object],
    references: References | None = None,
    brought=(IMAGE,),
):
    return judge_images(brought, [found], users, references or References())


def test_an_image_that_nothing_refers_to_goes():
    (thing,) = image(listed(SharedSize=-1))
    assert (thing.verdict, thing.bytes) == ("removed", 100)


def test_what_an_image_shares_is_not_what_it_frees():
    assert image(listed(SharedSize=60))[0].bytes == 40


@pytest.mark.parametrize(
    ("shared", "packed_counted", "at_most"),
    [(-1, True, True), (0, False, False), (60, False, True), (60, True, False)],
)
def test_a_size_that_the_engine_does_not_know_is_one_at_most(shared, packed_counted, at_most):
    (thing,) = judge_images([IMAGE], [listed(SharedSize=shared)], [], References(), packed_counted)
    assert thing.result()["at_most"] is at_most
    pruned = {"things": [thing.result()], "freed_bytes": 40, "freed_at_most": at_most}
    rows = prune_references.rows("s", pruned, None, check=True)
    assert [row["size"].startswith("at most ") for row in rows] == [at_most, at_most]


def test_an_image_that_this_collection_did_not_bring_is_not_even_listed():
    assert image(listed(), brought=()) == []


def test_an_image_that_is_referred_to_stays():
    references = References()
    references.refer("last_good", IMAGE)
    (thing,) = image(listed(), references=references)
    assert (thing.verdict, thing.why) == ("kept", "last_good")


def test_an_image_that_a_container_was_made_from_stays_whatever_its_name_was():
    (thing,) = image(listed(), container(Image="renamed:1"))
    assert (thing.verdict, thing.why) == ("kept", "container server")
    assert image(listed(), container(ImageID="sha256:2"))[0].verdict == "removed"


@pytest.mark.parametrize("other", ["mine:latest", "vllm/vllm-openai:gemma4"])
def test_an_image_that_someone_gave_another_name_stays(other):
    (thing,) = image(listed(RepoTags=[other]))
    assert (thing.verdict, thing.why) == ("kept", f"also known as {other}")


def test_no_name_is_no_other_name():
    assert image(listed(RepoTags=["<none>:<none>"]))[0].verdict == "removed"


def test_two_names_of_the_ledger_go_together_and_stay_together():
    other = f"mirror/vllm@sha256:{'9' * 64}"
    both = listed(RepoDigests=[IMAGE, other])
    assert [thing.verdict for thing in image(both, brought=(IMAGE, other))] == ["removed", "removed"]
    references = References()
    references.refer("current", other)
    assert [thing.verdict for thing in image(both, brought=(IMAGE, other), references=references)] == [
        "kept",
        "kept",
    ]


def test_an_image_that_someone_else_removed_is_forgotten_unless_it_is_referred_to():
    (thing,) = image(listed(RepoDigests=[]))
    assert (thing.verdict, thing.why, thing.bytes) == ("removed", "no longer on the host: forgotten", 0)
    references = References()
    references.refer("current", IMAGE)
    assert image(listed(RepoDigests=[]), references=references)[0].verdict == "kept"


@pytest.mark.parametrize(
    "name", ["docker.io/library/x@y", "index.docker.io/library/x@y", "library/x@y", "x@y"]
)
def test_docker_hubs_own_prefixes_are_no_part_of_a_name(name):
    assert familiar(name) == "x@y"
    assert familiar("docker.io/vllm/x@y") == "vllm/x@y" and familiar("ghcr.io/x@y") == "ghcr.io/x@y"


# Sizes


def removed(*inodes: tuple[int, int, int, int]) -> Thing:
    """:param inodes: (number, bytes, links seen, links there are)"""
    usage = Usage({(0, number): [size, seen, links] for number, size, seen, links in inodes})
    return Thing("snapshot", "x", "/x", usage=usage).judged("removed", "")


def test_a_file_is_free_when_its_last_link_goes_and_counts_once():
    assert freed([removed((1, 10, 1, 1), (2, 20, 1, 2))]) == 10, "another name of 2 stays"
    assert freed([removed((2, 20, 1, 2)), removed((2, 20, 1, 2))]) == 20
    assert freed([removed((1, 10, 1, 1)).judged("kept", "")]) == 0
    assert removed((1, 10, 2, 2)).bytes == 10


def test_the_diff_lacks_what_goes():
    things = [removed((1, 10, 1, 1)), Thing("patch", "p", "/p", size=5).judged("kept", "")]
    assert prune_references.diff(things) == {
        "before": "snapshot /x 10\npatch /p 5\n",
        "after": "patch /p 5\n",
    }


# For people


def test_the_table_has_a_row_a_thing_and_the_total():
    pruned = {"things": [snapshot(size=2_500_000_000).judged("removed", "nothing refers to it").result()]}
    rows = prune_references.rows("spark-1", pruned | {"freed_bytes": 2_500_000_000}, None, check=True)
    assert [tuple(row) for row in rows] == [COLUMNS, COLUMNS]
    assert list(rows[0].values())[1:] == [
        "snapshot",
        f"o/n@{'a' * 12}",
        "2.50 GB",
        "would go",
        "nothing refers to it",
    ]
    assert list(rows[1].values())[1:] == ["total", "-", "2.50 GB", "would come free", ""]
    assert prune_references.rows("s", pruned, None, check=False)[0]["verdict"] == "removed"


def test_a_host_that_failed_is_in_the_table():
    (row,) = prune_references.rows("s", {}, {"task": "the host did not answer"}, check=False)
    assert (row["verdict"], row["why"]) == ("FAILED", "the host did not answer")
