"""The module against a real registry, Hub and raw file server on this machine."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import yaml
from ansible.module_utils import _internal
from ansible.module_utils.common import warnings as of_process
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import upstream
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import registry
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.hub import Hub
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import recipe
from ansible_collections.sparkfleet.vllm.plugins.modules import recipe_lock
from helpers import printed
from helpers.hub import lab_hub
from helpers.recipe import BODY, DRAFT, IMAGE, PATCH, PATCH_PATH, SHIPPED, TAG, depot

RECIPE, _PROBLEMS = recipe.parse(SHIPPED.read_text(), "r")
FILES = {"config.json": b"{}", "model.safetensors": b"\0" * 100}
CLOSED = "http://127.0.0.1:9"


class Lab:
    """The upstreams, and the module called against them."""

    def __init__(self, folder: Path, hub, server, capsys) -> None:
        self.hub, self.server, self.capsys = hub, server, capsys
        self.lock_path, self.cache = folder / "locks" / "x.lock.yml", folder / "cache"
        hub.add(BODY, FILES, commit=RECIPE["models"]["body"]["revision"])
        self.draft = hub.add(DRAFT, FILES, commit="d" * 40)
        self.recipe = RECIPE
        self.patch_file = Path()

    def run(self, **options):
        arguments = {
            "recipe": self.recipe,
            "lock_path": str(self.lock_path),
            "hub_endpoint": self.hub.url,
            "raw_endpoint": f"{self.server.url}/raw",
            "cache_dir": str(self.cache),
        } | options
        of_process._global_warnings.clear()
        with patch_module_args(arguments), pytest.raises(SystemExit):
            recipe_lock.main()
        result = printed.result(self.capsys.readouterr().out)
        assert arguments.get("hub_token", "hf_none") not in json.dumps(result)
        return result

    def move_draft(self):
        self.hub.add(DRAFT, {**FILES, "config.json": b'{"new": 1}'}, commit="e" * 40)


@pytest.fixture
def lab(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(upstream.time, "sleep", lambda _s: None)
    monkeypatch.setattr(recipe_lock, "Hub", partial(Hub, sleep=lambda _s: None))
    with lab_hub(tmp_path / "hub") as hub, depot() as server:
        monkeypatch.setattr(registry, "DOCKER_HUB_API", server.url)
        yield Lab(tmp_path, hub, server, capsys)
    of_process._global_warnings.clear()


@pytest.fixture
def locked(lab):
    lab.run()
    lab.server.requests.clear()
    lab.hub.forget_requests()
    return lab


@pytest.fixture(autouse=True)
def on_a_host(monkeypatch):
    """Where action plugins have been imported, Ansible takes the process for a controller and shows a module's warnings."""
    monkeypatch.setattr(_internal, "is_controller", False)


def warnings(result):
    return "\n".join(str(warning) for warning in result.get("warnings", []))


def test_first_use_writes_a_lock_and_says_what_it_trusts(lab):
    result = lab.run()
    assert result["changed"] is True
    written = yaml.safe_load(lab.lock_path.read_text())
    assert written == result["lock"]
    assert written["image"]["pinned"] == f"{IMAGE}@{lab.server.digest()}"
    assert written["models"]["draft"]["commit"] == "d" * 40
    assert written["models"]["draft"]["files"] == lab.draft["files"]
    (patch,) = result["patches"]
    assert Path(patch["src"]).read_bytes() == PATCH
    assert (patch["target"], patch["tried_with"]) == (
        RECIPE["patches"][0]["target"], RECIPE["patches"][0]["tried_with"],
    )  # fmt: skip
    assert "src" not in written["patches"][0]
    assert f"trust on first use: nothing but the connection vouches for {patch['name']}" in warnings(result)
    assert patch["md5"] in warnings(result)


def test_a_second_run_changes_nothing_and_asks_for_no_file_of_a_model(locked):
    before = locked.lock_path.stat()
    result = locked.run()
    assert result["changed"] is False
    assert warnings(result) == ""
    assert locked.lock_path.stat().st_mtime_ns == before.st_mtime_ns
    assert [request["path"] for request in locked.hub.requests()] == [f"/api/models/{DRAFT}/revision/main"]


def test_locked_and_no_lock_is_refused_before_anything_is_asked(lab):
    result = lab.run(locked=True)
    assert result["failed"] is True
    assert str(lab.lock_path) in result["msg"] and "spark_locked" in result["msg"]
    assert not lab.lock_path.exists() and not lab.cache.exists()
    assert lab.server.requests == [] and lab.hub.requests() == []


def test_locked_with_a_lock_goes_on(locked):
    assert not locked.run(locked=True).get("failed")


def test_check_mode_writes_no_lock_and_returns_the_one_it_would(lab):
    checked = lab.run(_ansible_check_mode=True)
    assert (checked["changed"], lab.lock_path.exists()) == (True, False)
    assert Path(checked["patches"][0]["src"]).read_bytes() == PATCH
    assert lab.run()["lock"] == checked["lock"]


def test_a_moved_tag_stops_the_run_with_both_digests(locked):
    old = locked.server.digest()
    locked.server.manifests[f"{IMAGE}:{TAG}"] = b'{"moved": true}'
    result = locked.run()
    assert result["failed"] is True
    assert f"locked {old}, upstream {locked.server.digest()}" in result["msg"]
    assert "No host was touched" in result["msg"] and "lock" in result["msg"]
    assert [d["value"] for d in result["differences"]] == ["digest"]


def test_a_moved_branch_stops_the_run_with_both_commits(locked):
    locked.move_draft()
    result = locked.run()
    assert result["failed"] is True
    assert f"locked {'d' * 40}, upstream {'e' * 40}" in result["msg"]


def test_a_changed_patch_stops_the_run_with_both_md5(locked):
    locked.server.raw[PATCH_PATH] = b"changed"
    result = locked.run()
    assert result["failed"] is True
    md5 = {d["value"]: d for d in result["differences"]}["md5"]
    assert f"md5: locked {md5['locked']}, upstream {md5['seen']}" in result["msg"]


def test_a_tag_that_is_gone_stops_the_run(locked):
    locked.server.manifests.clear()
    assert "upstream gone: " in locked.run()["msg"]


def test_warn_goes_on_with_what_is_locked(locked):
    locked.server.manifests[f"{IMAGE}:{TAG}"] = b'{"moved": true}'
    locked.server.raw[PATCH_PATH] = b"changed"
    locked.move_draft()
    result = locked.run(upstream="warn")
    assert not result.get("failed") and result["changed"] is False
    assert result["lock"] == yaml.safe_load(locked.lock_path.read_text())
    assert Path(result["patches"][0]["src"]).read_bytes() == PATCH
    for value in ("digest", "commit", "md5"):
        assert f"{value}: locked " in warnings(result)


def test_ignore_asks_nobody(locked):
    locked.move_draft()
    assert locked.run(upstream="ignore")["changed"] is False
    assert locked.server.requests == [] and locked.hub.requests() == []


@pytest.mark.parametrize("mode", ["fail", "warn", "ignore"])
def test_an_unreachable_upstream_leaves_the_lock_in_force(locked, mode):
    registry.DOCKER_HUB_API = CLOSED  # undone by the fixture's monkeypatch
    result = locked.run(upstream=mode, hub_endpoint=CLOSED, raw_endpoint=CLOSED)
    assert not result.get("failed"), result["msg"]
    told = warnings(result)
    for part in ("image: ", "models.draft: ", "patches.gemma4_mtp.py: "):
        assert (f"upstream could not be asked: {part}" in told) == (mode != "ignore")


def test_an_unreachable_upstream_and_no_cached_patch_stops_the_run(locked, tmp_path):
    result = locked.run(raw_endpoint=CLOSED, cache_dir=str(tmp_path / "empty"))
    assert result["failed"] is True
    assert "a locked patch is not to be had" in result["msg"]


def test_a_damaged_cache_is_mended_from_upstream(locked):
    (kept,) = locked.cache.glob("patches/*/*")
    kept.write_bytes(b"damaged")
    result = locked.run(upstream="ignore")
    assert Path(result["patches"][0]["src"]).read_bytes() == PATCH


def test_without_a_lock_every_unreachable_part_is_named_at_once(lab):
    registry.DOCKER_HUB_API = CLOSED
    result = lab.run(hub_endpoint=CLOSED, raw_endpoint=CLOSED)
    assert result["failed"] is True
    for part in ("image: ", "models.body: ", "models.draft: ", "patches.gemma4_mtp.py: "):
        assert f"\n  {part}" in result["msg"]
    assert not lab.lock_path.exists()


def test_updated_rewrites_the_lock_and_its_diff_is_only_what_changed(locked):
    locked.move_draft()
    locked.server.raw[PATCH_PATH] = b"changed"
    result = locked.run(state="updated", _ansible_diff=True)
    assert result["changed"] is True
    before, after = result["diff"]["before"].splitlines(), result["diff"]["after"].splitlines()
    keys = [line.split(": ")[0] for line in after]
    assert keys == [
        "models.draft.commit", "models.draft.files[config.json]",
        "patches[gemma4_mtp.py].size", "patches[gemma4_mtp.py].md5", "patches[gemma4_mtp.py].sha256",
    ]  # fmt: skip
    assert [line.split(": ")[0] for line in before] == keys
    assert "trust on first use" in warnings(result)
    assert locked.run()["changed"] is False


def test_updated_in_check_mode_shows_and_keeps(locked):
    text = locked.lock_path.read_text()
    locked.move_draft()
    assert locked.run(state="updated", _ansible_check_mode=True)["changed"] is True
    assert locked.lock_path.read_text() == text


def test_updated_without_a_change_writes_nothing(locked):
    before = locked.lock_path.stat().st_mtime_ns
    result = locked.run(state="updated")
    assert result["changed"] is False
    assert locked.lock_path.stat().st_mtime_ns == before
    assert warnings(result) == ""


def test_what_makes_no_lock_never_takes_the_place_of_a_good_one(locked, monkeypatch):
    """Whatever an upstream says: each later run would refuse it."""
    before = locked.lock_path.read_bytes()
    wrong = locked.draft | {"revision": "main", "commit": "../../x"}
    monkeypatch.setattr(Hub, "resolve_manifest", lambda *_: wrong)
    for check in (True, False):
        result = locked.run(state="updated", _ansible_check_mode=check)
        assert result["failed"] is True
        assert "what was resolved makes no valid lock, and nothing was written" in result["msg"]
        assert "commit" in result["msg"]
    assert locked.lock_path.read_bytes() == before


def test_a_broken_lock_is_refused_and_updated_replaces_it(locked):
    locked.lock_path.write_text("version: 1\nrecipe: [\n")
    result = locked.run()
    assert result["failed"] is True and "the lock is not valid" in result["msg"]
    assert locked.run(state="updated")["changed"] is True
    assert locked.run()["changed"] is False


def test_a_recipe_edited_after_its_lock_is_refused(locked):
    locked.recipe = RECIPE | {"image": {"reference": "a/b:c"}}
    result = locked.run()
    assert f"image: reference: locked {IMAGE}:{TAG}, recipe a/b:c" in result["msg"]
    assert locked.server.requests == []


def test_an_invalid_recipe_is_refused(lab):
    lab.recipe = {**RECIPE, "serve": {"prt": 1}}
    assert "serve.prt: unknown key; nearest valid key: port" in lab.run()["msg"]


def test_a_place_that_cannot_be_written_says_what_to_set(lab, tmp_path):
    (tmp_path / "file").write_text("")
    result = lab.run(lock_path=str(tmp_path / "file" / "x.lock.yml"))
    assert result["failed"] is True
    assert "recipe_lock_dir" in result["msg"]


def test_a_wrong_hub_address_is_told(lab):
    assert "hub_endpoint: expected an endpoint" in lab.run(hub_endpoint="hub")["msg"]


def test_a_token_reaches_the_hub_and_no_result(lab):
    lab.hub.add(DRAFT, FILES, commit="d" * 40, gated=True, tokens=["hf_good"])
    assert "gated" in lab.run()["msg"]
    result = lab.run(hub_token="hf_good")
    assert not result.get("failed"), result["msg"]


def test_the_mirror_is_asked_first(lab):
    with depot() as mirror:
        mirror.manifests[f"{IMAGE}:{TAG}"] = b'{"of": "the mirror"}'
        result = lab.run(registry_mirrors=[mirror.url])
        assert result["lock"]["image"]["digest"] == mirror.digest()


def test_registry_credentials_come_from_the_environment_and_together(lab, monkeypatch):
    lab.server.scheme, lab.server.password, lab.server.anonymous_tokens = "bearer", ("me", "s3cret"), False
    assert "set the registry's user name and password" in lab.run()["msg"]
    monkeypatch.setenv("SPARKFLEET_REGISTRY_USERNAME", "me")
    monkeypatch.setenv("SPARKFLEET_REGISTRY_PASSWORD", "s3cret")
    result = lab.run()
    assert not result.get("failed"), result["msg"]
    assert "s3cret" not in json.dumps(result)


def test_missing_libraries_are_named(lab, monkeypatch):
    monkeypatch.setattr(recipe_lock, "HAS_REQUESTS", False)
    assert "requests" in lab.run()["msg"]


MEASURED = {
    "at": "2026-11-26T12:00:00Z", "hosts": ["spark-1"], "version": "0.32.0", "concurrency": 1, "ratio": 1.34, "low": 1.3,
    "high": 1.38, "because": "it is faster",
}  # fmt: skip
SPECULATION = {"num_speculative_tokens": 2, "method": "ngram", "options": {}, "measured": MEASURED}


def test_a_measured_speculation_is_written_and_nobody_is_asked(locked):
    before = yaml.safe_load(locked.lock_path.read_text())
    checked = locked.run(state="tuned", speculation=SPECULATION, _ansible_check_mode=True)
    assert checked["changed"] is True and yaml.safe_load(locked.lock_path.read_text()) == before
    result = locked.run(state="tuned", speculation=SPECULATION, _ansible_diff=True)
    assert (
        yaml.safe_load(locked.lock_path.read_text())
        == before | {"speculation": SPECULATION}
        == result["lock"]
    )
    assert "speculation.num_speculative_tokens: 2" in result["diff"]["after"]
    assert "speculation ngram n=2" in result["summary"][-1]
    assert locked.run(state="tuned", speculation=SPECULATION)["changed"] is False
    assert locked.server.requests == [] and locked.hub.requests() == []
    assert locked.run()["lock"]["speculation"] == SPECULATION


def test_a_speculation_that_is_none_and_a_lock_that_is_not_there_are_refused(lab):
    assert "lock the recipe first" in lab.run(state="tuned", speculation=SPECULATION)["msg"]
    lab.run()
    wrong = SPECULATION | {"num_speculative_tokens": 99}
    assert "num_speculative_tokens: expected 0 to 64" in lab.run(state="tuned", speculation=wrong)["msg"]
    assert "speculation" in lab.run(state="tuned")["msg"]
    assert "speculation" not in yaml.safe_load(lab.lock_path.read_text())


def test_updated_keeps_a_measured_speculation_until_a_model_moves(locked):
    locked.run(state="tuned", speculation=SPECULATION)
    locked.server.manifests[f"{IMAGE}:{TAG}"] = b'{"moved": true}'
    result = locked.run(state="updated")
    assert result["lock"]["speculation"] == SPECULATION
    assert "is dropped" not in warnings(result)
    locked.move_draft()
    result = locked.run(state="updated")
    assert "speculation" not in yaml.safe_load(locked.lock_path.read_text())
    assert "measured with the draft of commit" in warnings(result)


COMMIT = "dee37d89115db4c94a820a79a78a7828e141c910"
BUILT = "sha256:" + "7" * 64


@pytest.fixture
def built(lab):
    """A recipe whose image is built."""
    lab.recipe = RECIPE | {
        "image": {
            "reference": f"sparkfleet/vllm-openai:main-{COMMIT[:12]}",
            "build": {"repository": "vllm-project/vllm", "commit": COMMIT},
        }
    }
    return lab


def test_a_build_makes_the_lock_and_the_lock_is_in_force(built):
    made = built.run(state="built", image_digest=BUILT)
    assert made["changed"], made
    assert made["lock"]["image"]["pinned"] == f"sparkfleet/vllm-openai@{BUILT}"
    built.server.requests.clear()
    assert not built.run()["changed"]
    assert not built.run(state="updated")["changed"]
    assert not [path for _method, path, _auth in built.server.requests if path.startswith("/v2/")]


def test_another_build_changes_the_image_and_leaves_the_rest_though_upstream_moved(built):
    built.run(state="built", image_digest=BUILT)
    built.move_draft()
    built.hub.forget_requests()
    result = built.run(state="built", image_digest="sha256:" + "8" * 64, _ansible_diff=True)
    assert result["diff"]["before"] == f"image.digest: {BUILT}\n"
    assert result["lock"]["models"]["draft"]["commit"] == "d" * 40
    assert not built.run(state="built", image_digest="sha256:" + "8" * 64)["changed"]


def test_a_build_that_is_not_there_yet_stops_with_the_playbook_to_run(built):
    result = built.run()
    assert "sparkfleet.vllm.build" in result["msg"]
    assert not built.lock_path.exists()
    assert built.run(state="built")["failed"]
