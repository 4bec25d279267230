from __future__ import annotations

import copy

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.upstream import (
    NotFound,
    Unreachable,
    Unusable,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import patch_cache, resolve
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe.lock import parse, render
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe.resolve import LockError, hold
from helpers.lock import BUILT, DIGEST, MARK, RECIPE, Cache, Upstream, built, with_build
from helpers.recipe import DRAFT, IMAGE, PATCH, TAG


@pytest.fixture
def upstream():
    return Upstream()


@pytest.fixture
def cache():
    return Cache()


@pytest.fixture
def lock(upstream, cache):
    made = resolve.resolve(RECIPE, upstream, cache).lock
    upstream.asked.clear()
    return made


def test_names_become_what_they_stand_for(upstream, cache):
    resolution = resolve.resolve(RECIPE, upstream, cache)
    assert resolution.lock["image"] == {
        "reference": f"{IMAGE}:{TAG}", "digest": upstream.image, "pinned": f"{IMAGE}@{upstream.image}",
    }  # fmt: skip
    assert resolution.lock["models"]["draft"] == {
        "repository": DRAFT,
        "revision": "main",
        "commit": "d" * 40,
        "files": {
            "a.safetensors": {"size": 9, "sha256": "c" * 64},
            "z.json": {"size": 2, "sha256": "b" * 64},
        },
    }
    assert list(resolution.lock["models"]["draft"]["files"]) == ["a.safetensors", "z.json"]
    (patch,) = resolution.lock["patches"]
    assert (patch["md5"], patch["sha256"], patch["size"]) == (MARK.md5, MARK.sha256, len(PATCH))
    assert "src" not in patch and "target" not in patch
    assert resolution.sources == {"gemma4_mtp.py": f"/cache/{MARK.sha256}/gemma4_mtp.py"}


def test_every_part_that_cannot_be_resolved_is_named_and_nothing_is_kept(upstream, cache):
    upstream.image = NotFound("no tag")
    upstream.commits[DRAFT] = Unreachable("no Hub")
    upstream.content = Unusable("a web page")
    with pytest.raises(LockError) as failed:
        resolve.resolve(RECIPE, upstream, cache)
    assert failed.value.problems == [
        "image: no tag", "models.draft: no Hub", "patches.gemma4_mtp.py: a web page",
    ]  # fmt: skip
    assert cache.held == {}


def test_an_unchanged_upstream_is_asked_only_for_what_can_move(lock, upstream, cache):
    resolution = hold(lock, upstream, cache, ask=True)
    assert (resolution.differences, resolution.unknown, resolution.missing) == ([], [], [])
    # The body is pinned to a commit, which cannot move.
    assert sorted(upstream.asked) == [f"commit {DRAFT} main", f"image {IMAGE}:{TAG}", "patch gemma4_mtp.py"]


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (lambda up: setattr(up, "image", "sha256:" + "2" * 64),
         [f"image {IMAGE}:{TAG}: digest: locked sha256:{'1' * 64}, upstream sha256:{'2' * 64}"]),
        (lambda up: up.commits.update({DRAFT: "e" * 40}),
         [f"models.draft {DRAFT} at main: commit: locked {'d' * 40}, upstream {'e' * 40}"]),
        (lambda up: setattr(up, "image", NotFound("HTTP 404")),
         [f"image {IMAGE}:{TAG}: digest: locked sha256:{'1' * 64}, upstream gone: HTTP 404"]),
        (lambda up: up.commits.update({DRAFT: NotFound("no revision")}),
         [f"models.draft {DRAFT} at main: commit: locked {'d' * 40}, upstream gone: no revision"]),
        (lambda up: setattr(up, "content", NotFound("HTTP 404")),
         [f"patches.gemma4_mtp.py: md5: locked {MARK.md5}, upstream gone: HTTP 404"]),
    ],
)  # fmt: skip
def test_each_changed_upstream_value_is_shown_with_the_locked_one(lock, upstream, cache, change, lines):
    change(upstream)
    resolution = hold(lock, upstream, cache, ask=True)
    assert [difference.line("upstream") for difference in resolution.differences] == lines
    assert resolution.missing == []


def test_a_changed_patch_shows_both_md5_and_the_locked_file_stays_in_use(lock, upstream, cache):
    upstream.content = b"changed"
    resolution = hold(lock, upstream, cache, ask=True)
    new = patch_cache.fingerprint(b"changed")
    told = {d.value: (d.locked, d.seen) for d in resolution.differences}
    assert told == {
        "md5": (MARK.md5, new.md5),
        "sha256": (MARK.sha256, new.sha256),
        "size": (str(len(PATCH)), "7"),
    }
    assert resolution.sources == {"gemma4_mtp.py": f"/cache/{MARK.sha256}/gemma4_mtp.py"}
    assert list(cache.held.values()) == [PATCH]


def test_a_changed_patch_without_a_cached_copy_is_missing(lock, upstream):
    upstream.content = b"changed"
    cache = Cache()
    for ask in (True, False):
        resolution = hold(lock, upstream, cache, ask=ask)
        assert resolution.sources == {} and cache.held == {}
        assert MARK.sha256 in resolution.missing[0] and MARK.md5 in resolution.missing[0]


def test_a_silent_upstream_leaves_the_lock_in_force(lock, upstream, cache):
    upstream.image = upstream.content = upstream.commits[DRAFT] = Unreachable("down")
    resolution = hold(lock, upstream, cache, ask=True)
    assert (resolution.differences, resolution.missing) == ([], [])
    assert resolution.unknown == ["image: down", "models.draft: down", "patches.gemma4_mtp.py: down"]
    assert resolution.sources


def test_a_silent_upstream_and_an_empty_cache_miss_the_patch(lock, upstream):
    upstream.content = Unreachable("down")
    assert "seen neither: down" in hold(lock, upstream, Cache(), ask=True).missing[0]


def test_without_asking_only_what_the_cache_lacks_is_fetched(lock, upstream, cache):
    assert hold(lock, upstream, cache, ask=False).sources
    assert upstream.asked == []
    resolution = hold(lock, upstream, Cache(), ask=False)
    assert upstream.asked == ["patch gemma4_mtp.py"]
    assert (resolution.missing, list(resolution.sources)) == ([], ["gemma4_mtp.py"])


def test_an_image_that_is_built_has_its_digest_from_the_build_and_nobody_is_asked(upstream, cache, lock):
    made, covers = resolve.with_image(BUILT, lock, DIGEST)
    assert covers
    assert made["image"] == BUILT["image"] | {"digest": DIGEST, "pinned": f"sparkfleet/vllm-openai@{DIGEST}"}
    assert {key: made[key] for key in ("models", "patches")} == {
        key: lock[key] for key in ("models", "patches")
    }
    hold(made, upstream, cache, ask=True)
    assert not [asked for asked in upstream.asked if asked.startswith("image")]
    parsed, problems = parse(render(made), "lock")
    assert (parsed, problems) == (made, [])


def test_without_a_build_there_is_no_lock_and_the_name_is_asked_of_no_registry(upstream, cache, lock):
    for before in (None, lock, built(lock, with_build(arguments={}))):
        with pytest.raises(
            LockError, match=r"image: .* it is built, not published; .*sparkfleet\.vllm\.build"
        ):
            resolve.resolve(BUILT, upstream, cache, before)
    assert not [asked for asked in upstream.asked if asked.startswith("image")]


def test_locking_anew_keeps_the_digest_of_what_was_built_from_the_same(upstream, cache, lock):
    assert resolve.resolve(BUILT, upstream, cache, built(lock)).lock == built(lock)


def test_a_build_covers_no_other_part_of_a_recipe_that_was_edited(lock):
    recipe = copy.deepcopy(BUILT)
    recipe["models"]["draft"]["revision"] = "other"
    _made, covers = resolve.with_image(recipe, lock, DIGEST)
    assert not covers
    _made, covers = resolve.with_image(BUILT, {}, DIGEST)
    assert not covers
