from __future__ import annotations

import copy

import pytest
import yaml
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.upstream import (
    NotFound,
    Unreachable,
    Unusable,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import lock as locks
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import raw_file
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import recipe as recipes
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe.lock import (
    LockError,
    against,
    hold,
    parse,
    render,
)
from helpers.recipe import BODY, DRAFT, IMAGE, PATCH, PATCH_PATH, SHIPPED, TAG, depot

RECIPE, _PROBLEMS = recipes.parse(SHIPPED.read_text(), "r")
MARK = raw_file.fingerprint(PATCH)


class Upstream:
    """Answers by name; an exception is raised. Records what it was asked."""

    def __init__(self) -> None:
        self.image = "sha256:" + "1" * 64
        self.commits = {BODY: RECIPE["models"]["body"]["revision"], DRAFT: "d" * 40}
        self.content = PATCH
        self.asked: list[str] = []

    def _give(self, what, answer):
        self.asked.append(what)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def digest(self, reference):
        return self._give(f"image {reference}", self.image)

    def commit(self, repository, revision):
        return self._give(f"commit {repository} {revision}", self.commits[repository])

    def manifest(self, repository, revision):
        commit = self._give(f"manifest {repository} {revision}", self.commits[repository])
        files = {"z.json": {"size": 2, "sha256": "b" * 64}, "a.safetensors": {"size": 9, "sha256": "c" * 64}}
        return {"repository": repository, "revision": revision, "commit": commit, "files": files}

    def patch(self, patch):
        return self._give(f"patch {patch['name']}", self.content)


class Cache:
    def __init__(self) -> None:
        self.held: dict[tuple[str, str], bytes] = {}

    def find(self, sha256, name):
        return f"/cache/{sha256}/{name}" if (sha256, name) in self.held else None

    def keep(self, name, content):
        sha256 = raw_file.fingerprint(content).sha256
        self.held[sha256, name] = content
        return f"/cache/{sha256}/{name}"


@pytest.fixture
def upstream():
    return Upstream()


@pytest.fixture
def cache():
    return Cache()


@pytest.fixture
def lock(upstream, cache):
    made = locks.resolve(RECIPE, upstream, cache).lock
    upstream.asked.clear()
    return made


def test_names_become_what_they_stand_for(upstream, cache):
    settled = locks.resolve(RECIPE, upstream, cache)
    assert settled.lock["image"] == {
        "reference": f"{IMAGE}:{TAG}", "digest": upstream.image, "pinned": f"{IMAGE}@{upstream.image}",
    }  # fmt: skip
    assert settled.lock["models"]["draft"] == {
        "repository": DRAFT,
        "revision": "main",
        "commit": "d" * 40,
        "files": {
            "a.safetensors": {"size": 9, "sha256": "c" * 64},
            "z.json": {"size": 2, "sha256": "b" * 64},
        },
    }
    assert list(settled.lock["models"]["draft"]["files"]) == ["a.safetensors", "z.json"]
    (patch,) = settled.lock["patches"]
    assert (patch["md5"], patch["sha256"], patch["size"]) == (MARK.md5, MARK.sha256, len(PATCH))
    assert "src" not in patch and "target" not in patch
    assert settled.sources == {"gemma4_mtp.py": f"/cache/{MARK.sha256}/gemma4_mtp.py"}


def test_every_part_that_cannot_be_resolved_is_named_and_nothing_is_kept(upstream, cache):
    upstream.image = NotFound("no tag")
    upstream.commits[DRAFT] = Unreachable("no Hub")
    upstream.content = Unusable("a web page")
    with pytest.raises(LockError) as failed:
        locks.resolve(RECIPE, upstream, cache)
    assert failed.value.problems == [
        "image: no tag", "models.draft: no Hub", "patches.gemma4_mtp.py: a web page",
    ]  # fmt: skip
    assert cache.held == {}


def test_a_lock_survives_its_file_and_its_bytes_are_stable(lock):
    text = render(lock)
    assert parse(text, "l") == (lock, [])
    assert render(parse(text, "l")[0]) == text
    assert text.startswith("---\n# ")
    assert list(yaml.safe_load(text)) == ["version", "recipe", "image", "models", "patches"]


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        (lambda lock: lock.update(version=2), "version", "made by another release"),
        (lambda lock: lock.pop("image"), "image", "required and missing"),
        (lambda lock: lock["image"].update(digest="sha256:12"), "image.digest", "sha256:…"),
        (lambda lock: lock["image"].update(pinned=f"{IMAGE}@sha256:{'2' * 64}"), "image.pinned", "expected the image"),
        (lambda lock: lock["models"]["body"].update(commit="main"), "models.body.commit", "40 lower-case"),
        (lambda lock: lock["models"]["body"].update(files={}), "models.body.files", "at least one"),
        (lambda lock: lock["models"]["body"]["files"]["z.json"].update(sha256="x"),
         "models.body.files.z.json.sha256", "64 lower-case"),
        (lambda lock: lock["models"]["body"]["files"]["z.json"].update(size="2"),
         "models.body.files.z.json.size", "a whole number"),
        (lambda lock: lock["patches"][0].update(md5="0"), "patches[0].md5", "32 hex digits"),
        (lambda lock: lock["patches"][0].update(src="/x"), "patches[0].src", "unknown key"),
    ],
)  # fmt: skip
def test_an_edited_lock_is_refused_with_its_line(lock, change, key, says):
    change(lock)
    found, problems = parse(render(lock), "l")
    assert found == {}
    (problem,) = problems
    assert problem.key == key
    assert says in str(problem)
    assert problem.line


def test_a_lock_covers_the_recipe_it_was_made_of(lock):
    assert against(RECIPE, lock) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda r: r["image"].update(reference="a/b:c"), f"image: reference: locked {IMAGE}:{TAG}, recipe a/b:c"),
        (lambda r: r.update(name="x"), "recipe: name: locked huihui-gemma4-mtp-n1, recipe x"),
        (lambda r: r["models"]["draft"].update(revision="v2"), "models.draft: revision: locked main, recipe v2"),
        (lambda r: r["models"]["body"].update(repository="a/b"), f"models.body: repository: locked {BODY}, recipe a/b"),
        (lambda r: r["models"].pop("draft"), "models: draft: locked there, recipe absent"),
        (lambda r: r["patches"].clear(), "patches: gemma4_mtp.py: locked there, recipe absent"),
        (lambda r: r["patches"].append(r["patches"][0] | {"name": "b.py"}), "patches: b.py: locked absent, recipe there"),
        (lambda r: r["patches"][0].update(commit="e" * 40),
         f"patches.gemma4_mtp.py: commit: locked {RECIPE['patches'][0]['commit']}, recipe {'e' * 40}"),
        (lambda r: r["patches"][0].update(path="a.py"),
         "patches.gemma4_mtp.py: path: locked vllm/model_executor/models/gemma4_mtp.py, recipe a.py"),
    ],
)  # fmt: skip
def test_a_recipe_edited_after_its_lock_shows_both_values(lock, change, line):
    recipe = copy.deepcopy(RECIPE)
    change(recipe)
    assert [difference.line("recipe") for difference in against(recipe, lock)] == [line]


def test_what_no_lock_holds_can_change_freely(lock):
    recipe = copy.deepcopy(RECIPE)
    recipe["serve"]["arguments"]["max-model-len"] = 1
    recipe["models"]["body"]["mount"] = "/elsewhere"
    recipe["patches"][0]["tried_with"] = []
    assert against(recipe, lock) == []


def test_an_unchanged_upstream_is_asked_only_for_what_can_move(lock, upstream, cache):
    settled = hold(lock, upstream, cache, ask=True)
    assert (settled.differences, settled.unknown, settled.missing) == ([], [], [])
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
    settled = hold(lock, upstream, cache, ask=True)
    assert [difference.line("upstream") for difference in settled.differences] == lines
    assert settled.missing == []


def test_a_changed_patch_shows_both_md5_and_the_locked_file_stays_in_use(lock, upstream, cache):
    upstream.content = b"changed"
    settled = hold(lock, upstream, cache, ask=True)
    new = raw_file.fingerprint(b"changed")
    told = {d.value: (d.locked, d.seen) for d in settled.differences}
    assert told == {
        "md5": (MARK.md5, new.md5),
        "sha256": (MARK.sha256, new.sha256),
        "size": (str(len(PATCH)), "7"),
    }
    assert settled.sources == {"gemma4_mtp.py": f"/cache/{MARK.sha256}/gemma4_mtp.py"}
    assert list(cache.held.values()) == [PATCH]


def test_a_changed_patch_without_a_cached_copy_is_missing(lock, upstream):
    upstream.content = b"changed"
    cache = Cache()
    for ask in (True, False):
        settled = hold(lock, upstream, cache, ask=ask)
        assert settled.sources == {} and cache.held == {}
        assert MARK.sha256 in settled.missing[0] and MARK.md5 in settled.missing[0]


def test_a_silent_upstream_leaves_the_lock_in_force(lock, upstream, cache):
    upstream.image = upstream.content = upstream.commits[DRAFT] = Unreachable("down")
    settled = hold(lock, upstream, cache, ask=True)
    assert (settled.differences, settled.missing) == ([], [])
    assert settled.unknown == ["image: down", "models.draft: down", "patches.gemma4_mtp.py: down"]
    assert settled.sources


def test_a_silent_upstream_and_an_empty_cache_miss_the_patch(lock, upstream):
    upstream.content = Unreachable("down")
    assert "seen neither: down" in hold(lock, upstream, Cache(), ask=True).missing[0]


def test_without_asking_only_what_the_cache_lacks_is_fetched(lock, upstream, cache):
    assert hold(lock, upstream, cache, ask=False).sources
    assert upstream.asked == []
    settled = hold(lock, upstream, Cache(), ask=False)
    assert upstream.asked == ["patch gemma4_mtp.py"]
    assert (settled.missing, list(settled.sources)) == ([], ["gemma4_mtp.py"])


def test_a_diff_shows_what_changed_and_nothing_else(lock):
    after = copy.deepcopy(lock)
    after["models"]["draft"]["commit"] = "e" * 40
    after["models"]["draft"]["files"]["z.json"] = {"size": 3, "sha256": "f" * 64}
    after["models"]["draft"]["files"]["new.json"] = {"size": 1, "sha256": "0" * 64}
    after["patches"][0]["md5"] = "9" * 32
    assert locks.diff(lock, after) == {
        "before": f"models.draft.commit: {'d' * 40}\n"
        f"models.draft.files[z.json]: 2 bytes, sha256 {'b' * 64}\n"
        f"patches[gemma4_mtp.py].md5: {MARK.md5}\n",
        "after": f"models.draft.commit: {'e' * 40}\n"
        f"models.draft.files[z.json]: 3 bytes, sha256 {'f' * 64}\n"
        f"models.draft.files[new.json]: 1 bytes, sha256 {'0' * 64}\n"
        f"patches[gemma4_mtp.py].md5: {'9' * 32}\n",
    }
    assert locks.diff(lock, lock) == {"before": "", "after": ""}
    assert locks.diff({}, lock)["before"] == ""


def test_trust_on_first_use_names_each_md5_that_no_earlier_lock_holds(lock):
    (line,) = locks.first_use(lock, {})
    assert MARK.md5 in line
    assert locks.first_use(lock, lock) == []


def test_the_summary_names_digest_commits_and_md5(lock):
    told = "\n".join(locks.summary(lock))
    for value in (lock["image"]["digest"], "d" * 40, RECIPE["models"]["body"]["revision"], MARK.md5):
        assert value in told


# -- raw files and the cache


def test_a_raw_file_is_its_bytes_and_its_errors_are_told():
    repository, commit, path = "vllm-project/vllm", PATCH_PATH.split("/")[2], PATCH_PATH.split("/", 3)[3]
    with depot() as server:
        assert raw_file.fetch(f"{server.url}/raw/", repository, commit, path) == PATCH
        with pytest.raises(NotFound, match="no such repository, commit or path"):
            raw_file.fetch(f"{server.url}/raw", repository, "0" * 40, path)
        server.raw_type = "text/html; charset=utf-8"
        with pytest.raises(Unusable, match="a web page"):
            raw_file.fetch(f"{server.url}/raw", repository, commit, path)
        server.raw[PATCH_PATH], server.raw_type = b"", "text/plain"
        with pytest.raises(Unusable, match="an empty file"):
            raw_file.fetch(f"{server.url}/raw", repository, commit, path)


def test_the_cache_gives_only_what_its_address_says(tmp_path):
    path = raw_file.keep(str(tmp_path), "gemma4_mtp.py", PATCH)
    assert path == f"{tmp_path}/patches/{MARK.sha256}/gemma4_mtp.py"
    assert raw_file.cached(str(tmp_path), MARK.sha256, "gemma4_mtp.py") == path
    with open(path, "ab") as file:
        file.write(b"#")
    assert raw_file.cached(str(tmp_path), MARK.sha256, "gemma4_mtp.py") is None
    assert raw_file.cached(str(tmp_path), "0" * 64, "gemma4_mtp.py") is None


COMMIT = "dee37d89115db4c94a820a79a78a7828e141c910"
BUILT = RECIPE | {
    "image": {
        "reference": f"sparkfleet/vllm-openai:main-{COMMIT[:12]}",
        "build": {
            "repository": "vllm-project/vllm",
            "commit": COMMIT,
            "dockerfile": "docker/Dockerfile",
            "arguments": {"a": "1"},
        },
    }
}
DIGEST = "sha256:" + "7" * 64


def built(lock, recipe=BUILT):
    made, _covers = locks.with_image(recipe, lock, DIGEST)
    return made


def with_build(**changes):
    changed = copy.deepcopy(BUILT)
    changed["image"]["build"] |= changes
    return changed


def test_an_image_that_is_built_has_its_digest_from_the_build_and_nobody_is_asked(upstream, cache, lock):
    made, covers = locks.with_image(BUILT, lock, DIGEST)
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
            locks.resolve(BUILT, upstream, cache, before)
    assert not [asked for asked in upstream.asked if asked.startswith("image")]


def test_locking_anew_keeps_the_digest_of_what_was_built_from_the_same(upstream, cache, lock):
    assert locks.resolve(BUILT, upstream, cache, built(lock)).lock == built(lock)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"target": "test"}, "image.build: target: locked absent, recipe test"),
        ({"arguments": {"a": "2"}}, "image.build: arguments.a: locked 1, recipe 2"),
        ({"arguments": {}}, "image.build: arguments.a: locked 1, recipe absent"),
        (
            {"dockerfile": "Dockerfile"},
            "image.build: dockerfile: locked docker/Dockerfile, recipe Dockerfile",
        ),
    ],
)
def test_an_edit_of_the_build_is_not_covered_by_the_lock_and_asks_for_a_build(lock, changes, line):
    differences = against(with_build(**changes), built(lock))
    assert [difference.line("recipe") for difference in differences] == [line]
    assert "sparkfleet.vllm.build" in locks.outdated("r", "l", differences)


def test_an_image_that_is_published_again_asks_for_a_lock(lock):
    told = locks.outdated("r", "l", against(RECIPE, built(lock)))
    assert "image.build: repository: locked vllm-project/vllm, recipe absent" in told
    assert told.endswith("lock it as it is now: ansible-playbook sparkfleet.vllm.lock")


def test_a_build_covers_no_other_part_of_a_recipe_that_was_edited(lock):
    recipe = copy.deepcopy(BUILT)
    recipe["models"]["draft"]["revision"] = "other"
    _made, covers = locks.with_image(recipe, lock, DIGEST)
    assert not covers
    _made, covers = locks.with_image(BUILT, {}, DIGEST)
    assert not covers


def test_a_diff_shows_what_an_image_is_built_from_an_argument_a_line(lock):
    sides = locks.diff(built(lock), built(lock, with_build(arguments={"a": "2"})))
    assert sides == {"before": "image.build.arguments.a: 1\n", "after": "image.build.arguments.a: 2\n"}


def test_a_lock_whose_build_was_edited_into_nonsense_is_told(lock):
    broken = built(lock)
    broken["image"]["build"]["arguments"] = "x"
    _parsed, problems = parse(render(broken), "lock")
    assert [problem.key for problem in problems] == ["image.build.arguments"]
