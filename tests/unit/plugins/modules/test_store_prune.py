"""The module against a real tree and an engine that answers on a socket."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import oci
from ansible_collections.sparkfleet.vllm.plugins.module_utils._prune import registry as prune_registry
from ansible_collections.sparkfleet.vllm.plugins.module_utils._prune import store as prune_store
from ansible_collections.sparkfleet.vllm.plugins.module_utils._prune import usage
from ansible_collections.sparkfleet.vllm.plugins.modules import store_prune
from helpers.server import Handler, UnixServer, served

COMMITS = {name: letter * 40 for name, letter in (("old", "a"), ("good", "b"), ("now", "c"), ("next", "d"))}
SUMS = {name: letter * 64 for name, letter in (("old", "1"), ("good", "2"), ("now", "3"), ("next", "4"))}
IMAGES = {
    name: f"vllm/vllm-openai@sha256:{letter * 64}"
    for name, letter in (("old", "5"), ("good", "6"), ("now", "7"))
}
FOREIGN = f"someone/else@sha256:{'8' * 64}"
SIZE = 100_000


class Engine:
    """What the engine has; what it is asked to remove it removes unless `refuses` says why not."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = [
            {"Id": f"sha256:{name}", "RepoDigests": [reference], "RepoTags": None, "Size": 1000}
            for name, reference in [*IMAGES.items(), ("foreign", FOREIGN)]
        ]
        self.containers: list[dict[str, Any]] = []
        self.info: dict[str, Any] = {"ServerVersion": "29.7.2"}
        self.refuses: tuple[int, str] | None = None
        self.removed: list[str] = []

    def get(self, path: str) -> Any:
        url = urlsplit(path)
        if url.path == "/images/json":
            return (
                self.images
                if "shared-size=1" in url.query
                else [image | {"SharedSize": -1} for image in self.images]
            )
        if url.path == "/containers/json":
            running = [container for container in self.containers if container.get("State") == "running"]
            return self.containers if "all=1" in url.query else running
        if url.path == "/info":
            return self.info
        assert url.path == "/volumes"
        return {"Volumes": None}

    def delete(self, path: str) -> tuple[int, Any]:
        if self.refuses:
            return self.refuses[0], {"message": self.refuses[1]}
        url = urlsplit(path)
        assert "noprune=1" in url.query, "what it was made of may be someone else's"
        name = unquote(url.path.removeprefix("/images/"))
        self.removed.append(name)
        self.images = [image for image in self.images if name not in image["RepoDigests"]]
        return 200, [{"Untagged": name}]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    fake = Engine()

    class Answers(Handler):
        def do_GET(self) -> None:
            self.answer(200, json.dumps(fake.get(self.path)).encode())

        def do_DELETE(self) -> None:
            status, data = fake.delete(self.path)
            self.answer(status, json.dumps(data).encode())

    with served(UnixServer(str(tmp_path / "docker.sock"), Answers)):
        yield fake


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three generations of everything: one serves, one is to go back to, one is neither."""
    root = tmp_path / "store"
    for name in ("old", "good", "now"):
        put(root / "models/org--body" / COMMITS[name] / "deep/model.safetensors")
        put(root / "models/org--body" / f".verified-{COMMITS[name]}.json")
        put(root / "models/org--body" / f".pieces-{COMMITS[name]}.json")
        put(root / "patches" / SUMS[name] / "gemma4_mtp.py")
        put(root / "cache/compiled" / image_of(name) / "vllm/graph")
    put(root / "cache/images" / SUMS["now"] / "question.json")
    return root


@pytest.fixture
def state(tmp_path: Path, store: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    write_json(folder / "state.json", {"version": 1, "current": serving("now"), "last_good": serving("good")})
    write_json(folder / "images.json", {"version": 1, "images": list(IMAGES.values())})
    return folder


def image_of(name: str) -> str:
    """The digest of a generation's image, as the store has it."""
    return IMAGES[name].partition("@sha256:")[2]


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * SIZE)


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))


def serving(name: str) -> dict[str, Any]:
    """An entry of state.json, with what role vllm_serve records."""
    return {
        "serving": {
            "container": {"image": IMAGES[name], "volumes": []},
            "models": {"body": {"path": f"/srv/models/org--body/{COMMITS[name]}", "mount": "/models/body"}},
            "files": [{"path": "/in/the/image.py", "md5": "0" * 32, "sha256": SUMS[name]}],
        }
    }


@pytest.fixture
def call(tmp_path, store, state, engine, capsys):
    def run(check: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {
            "store": str(store),
            "state_dir": str(state),
            "socket": str(tmp_path / "docker.sock"),
            "_ansible_check_mode": check,
            **arguments,
        }
        capsys.readouterr()
        with patch_module_args(given), pytest.raises(SystemExit):
            store_prune.main()
        return json.loads(capsys.readouterr().out)

    return run


def listing(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.name != ".lock"}


def of(name: str) -> set[str]:
    """What a generation has in the store."""
    repository = "models/org--body"
    snapshot, patch = f"{repository}/{COMMITS[name]}", f"patches/{SUMS[name]}"
    cache = f"cache/compiled/{image_of(name)}"
    files = {f"{repository}/.{kind}-{COMMITS[name]}.json" for kind in ("verified", "pieces")}
    return files | {
        snapshot,
        f"{snapshot}/deep",
        f"{snapshot}/deep/model.safetensors",
        patch,
        f"{patch}/gemma4_mtp.py",
        cache,
        f"{cache}/vllm",
        f"{cache}/vllm/graph",
    }


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {thing["path"]: thing["verdict"] for thing in result["things"]}


def test_what_nothing_refers_to_goes_and_nothing_else(call, store, state, engine):
    before = listing(store)
    result = call()
    assert result["changed"] and not result.get("failed")
    assert listing(store) == before - of("old")
    assert engine.removed == [IMAGES["old"]]
    assert json.loads((state / "images.json").read_text())["images"] == [IMAGES["good"], IMAGES["now"]]
    removed = [thing["kind"] for thing in result["things"] if thing["verdict"] == "removed"]
    assert removed == ["cache", "snapshot", "patch", "image"]


def test_sizes_are_those_of_the_disk(call, store):
    repository = store / "models/org--body"
    paths = [
        repository / COMMITS["old"],
        *repository.glob(f".*-{COMMITS['old']}.json"),
        store / "patches" / SUMS["old"],
        store / "cache/compiled" / image_of("old"),
    ]
    blocks = sum(
        path.lstat().st_blocks * 512
        for top in paths
        for path in ([top, *top.rglob("*")] if top.is_dir() else [top])
    )
    result = call(check=True)
    assert result["freed_bytes"] == blocks + 1000
    assert sum(thing["bytes"] for thing in result["things"] if thing["verdict"] == "removed") == blocks + 1000


def test_what_an_image_shares_is_asked_for(call, engine):
    before = call(check=True)["freed_bytes"]
    engine.images[0]["SharedSize"] = 600
    assert call(check=True)["freed_bytes"] == before - 600


def test_an_image_of_the_store_that_the_engine_does_not_use_is_not_forgotten(call, engine, tmp_path):
    engine.images = []
    engine.info |= {"DockerRootDir": str(tmp_path), "Containerd": {"Address": "/run/docker/c.sock"}}
    in_containerd = tmp_path / "containerd/io.containerd.content.v1.content/blobs/sha256"
    put(in_containerd / IMAGES["old"].rpartition(":")[2])
    kept = {thing["path"]: thing for thing in call(check=True)["things"]}[IMAGES["old"]]
    assert kept["verdict"] == "kept" and f"in {tmp_path}/containerd, the image store that" in kept["why"]

    engine.info["DriverStatus"] = [["driver-type", "io.containerd.snapshotter.v1"]]
    assert verdicts(call(check=True))[IMAGES["old"]] == "removed", "containerd would list it"
    known = tmp_path / "image/overlay2/repositories.json"
    put(known)
    known.write_text(json.dumps({"Repositories": {"n": {IMAGES["old"]: "sha256:1"}}}))
    kept = {thing["path"]: thing for thing in call()["things"]}[IMAGES["old"]]
    assert kept["verdict"] == "kept" and f"in {tmp_path}/overlay2, the image store that" in kept["why"]


@pytest.mark.parametrize(
    ("version", "at_most"), [("28.5.2", True), ("29.4.1", True), ("29.5.0", False), ("30.0.0", False)]
)
def test_what_containerd_does_not_count_is_said(call, engine, version, at_most):
    for image in engine.images:
        image["SharedSize"] = 600
    engine.info = {"ServerVersion": version}
    assert call(check=True)["freed_at_most"] is False, "a graph driver counts all of it"
    engine.info["DriverStatus"] = [["driver-type", "io.containerd.snapshotter.v1"]]
    result = call(check=True)
    assert result["freed_at_most"] is at_most
    assert {thing["at_most"] for thing in result["things"] if thing["kind"] == "image"} == {at_most}


def test_what_a_link_points_to_has_no_size_here(tmp_path):
    put(tmp_path / "outside/x")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    assert usage.measure(tmp_path / "link").size < SIZE


def test_a_hard_link_elsewhere_keeps_its_bytes(call, store, tmp_path):
    free = call(check=True)["freed_bytes"]
    model = store / "models/org--body" / COMMITS["old"] / "deep/model.safetensors"
    os.link(model, tmp_path / "bundle")
    assert call(check=True)["freed_bytes"] == free - model.stat().st_blocks * 512


def test_check_mode_says_the_same_and_removes_nothing(call, store, state, engine):
    def everything() -> set[tuple[str, int]]:
        return {(str(path), path.lstat().st_mtime_ns) for root in (store, state) for path in root.rglob("*")}

    before = everything()
    looked = call(check=True)
    assert everything() == before and engine.removed == []
    assert looked["changed"]
    done = call()
    assert (done["things"], done["freed_bytes"]) == (looked["things"], looked["freed_bytes"])


def test_the_diff_names_what_goes(call, store):
    result = call(check=True)
    gone = set(result["diff"]["before"].splitlines()) - set(result["diff"]["after"].splitlines())
    assert {line.split()[1] for line in gone} == {
        str(store / "models/org--body" / COMMITS["old"]),
        str(store / "patches" / SUMS["old"]),
        str(store / "cache/compiled" / image_of("old")),
        IMAGES["old"],
    }


def test_the_cache_of_all_images_goes_once_nothing_is_mounted_from_it(call, store, state):
    """As an earlier version had it. The server that is to go back to may still be one of those."""
    put(store / "cache/vllm/graph")
    recorded = json.loads((state / "state.json").read_text())
    known = {**recorded, "last_good": serving("good")}
    mount = f"{store}/cache/vllm:/root/.cache/vllm:rw"
    known["last_good"]["serving"]["container"]["volumes"] = [mount]
    write_json(state / "state.json", known)
    call()
    assert (store / "cache/vllm/graph").is_file()
    write_json(state / "state.json", recorded)
    call()
    assert not (store / "cache/vllm").exists()


def test_what_images_answered_is_kept(call, store):
    (kept,) = (thing for thing in call()["things"] if thing["kind"] == "answers")
    assert (kept["verdict"], kept["path"]) == ("kept", str(store / "cache/images"))


def test_a_cache_goes_however_deep_its_container_nested_it(call, store):
    top = store / "cache/compiled" / image_of("old")
    handle = os.open(top, os.O_RDONLY)
    for _level in range(2 * sys.getrecursionlimit()):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    assert not call().get("failed")
    assert os.listdir(top.parent) and not top.exists()
    assert not list(top.parent.glob(".pruned-*"))


def test_what_is_left_of_a_cache_goes_the_next_time(call, store):
    left = [store / "cache/.pruned-vllm", store / "cache/compiled" / f".pruned-{image_of('old')}"]
    for path in left:
        put(path / "graph")
    call()
    assert not [path for path in left if path.exists()]


def test_a_second_run_changes_nothing(call):
    call()
    again = call()
    assert not again["changed"] and again["freed_bytes"] == 0
    assert "removed" not in verdicts(again).values()


# Never what serves


def test_what_the_lock_names_is_kept_before_it_serves(call, store, engine):
    before = listing(store)
    lock = {
        "image": {"reference": "x:1", "digest": IMAGES["old"].partition("@")[2]},
        "models": {"body": {"commit": COMMITS["old"]}},
        "patches": [{"sha256": SUMS["old"]}],
    }
    assert not call(lock=lock)["changed"]
    assert listing(store) == before and engine.removed == []


def test_what_keep_names_is_kept(call, store):
    call(keep=[COMMITS["old"]])
    assert (store / "models/org--body" / COMMITS["old"]).is_dir()
    assert not (store / "patches" / SUMS["old"]).exists()


def test_what_a_stopped_container_has_is_kept_although_no_state_names_it(call, store, engine):
    engine.containers = [
        {
            "Id": "f" * 64,
            "Names": ["/by-hand"],
            "State": "exited",
            "Image": "renamed",
            "ImageID": "sha256:old",
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": str(store / "models/org--body" / COMMITS["old"]),
                    "Destination": "/m",
                },
                {
                    "Type": "bind",
                    "Source": str(store / "patches" / SUMS["old"] / "gemma4_mtp.py"),
                    "Destination": "/p",
                },
                {
                    "Type": "bind",
                    "Source": str(store / "cache/compiled" / image_of("old") / "vllm"),
                    "Destination": "/c",
                },
            ],
        }
    ]
    before = listing(store)
    result = call()
    assert not result["changed"] and listing(store) == before
    why = {
        thing["why"]
        for thing in result["things"]
        if thing["path"].endswith((COMMITS["old"], SUMS["old"][:9]))
    }
    assert why == {"container by-hand"}


def test_a_mount_through_a_link_is_kept(call, store, engine, tmp_path):
    (tmp_path / "link").symlink_to(store)
    engine.containers = [{"Names": ["/x"], "Mounts": [{"Source": str(tmp_path / "link/models/org--body")}]}]
    call()
    assert (store / "models/org--body" / COMMITS["old"]).is_dir()


def test_a_store_behind_a_link_is_known_by_its_real_path(call, store, engine, tmp_path):
    (tmp_path / "link").symlink_to(store)
    engine.containers = [
        {"Id": "c", "Names": ["/x"], "Mounts": [{"Source": str(store / "models/org--body")}]}
    ]
    call(store=str(tmp_path / "link"))
    assert (store / "models/org--body" / COMMITS["old"]).is_dir()
    assert not (store / "patches" / SUMS["old"]).exists()


@pytest.mark.parametrize(
    "said", ["image is being used by stopped container x", "image has dependent child images"]
)
def test_an_image_that_the_engine_will_not_give_is_kept_with_its_reason(call, state, engine, said):
    engine.refuses = 409, f"conflict: {said}"
    result = call()
    assert verdicts(result)[IMAGES["old"]] == "kept"
    why = {thing["path"]: thing["why"] for thing in result["things"]}
    assert why[IMAGES["old"]] == f"the engine says: conflict: {said}"
    assert IMAGES["old"] in (state / "images.json").read_text()


def test_an_image_that_has_just_gone_is_forgotten(call, state, engine):
    engine.refuses = 404, "No such image"
    call()
    assert IMAGES["old"] not in (state / "images.json").read_text()


def test_an_engine_that_fails_is_a_failure_and_the_list_is_still_told(call, state, engine):
    engine.refuses = 500, "disk on fire"
    result = call()
    assert result["failed"] and "disk on fire" in result["msg"]
    assert verdicts(result)[IMAGES["old"]] == "failed"
    assert IMAGES["old"] in (state / "images.json").read_text()


# Refusals


@pytest.fixture
def refused(call, store, engine):
    """Runs the module, which must refuse and leave everything as it was. Gives its reason."""

    def run(**arguments: Any) -> str:
        before = listing(store)
        result = call(**arguments)
        assert result["failed"] and not result["changed"]
        assert listing(store) == before and engine.removed == []
        assert "nothing was removed" in result["msg"]
        return result["msg"]

    return run


def test_without_a_state_nothing_goes(refused, state):
    (state / "state.json").unlink()
    assert "seen none" in refused()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 9}', '{"version": 1, "current": null}'])
def test_a_state_that_cannot_be_read_removes_nothing(refused, state, text):
    (state / "state.json").write_text(text)
    assert str(state / "state.json") in refused()


def test_a_ledger_that_cannot_be_read_removes_nothing(refused, state):
    (state / "images.json").write_text('{"version": 9}')
    assert str(state / "images.json") in refused()


def test_no_ledger_is_no_image(call, state, engine):
    (state / "images.json").unlink()
    assert call()["changed"]
    assert engine.removed == []
    assert not (state / "images.json").exists()


def test_without_an_engine_nothing_goes(refused, tmp_path):
    assert "expected a Docker engine" in refused(socket=str(tmp_path / "none.sock"))


@pytest.mark.parametrize("path", ["/images/json", "/containers/json", "/volumes"])
def test_an_engine_that_tells_only_half_removes_nothing(refused, engine, monkeypatch, path):
    real = store_prune.engine_socket.get

    def get(socket: str, url: str, timeout: float, expected: Any) -> Any:
        if url.startswith(path):
            raise store_prune.engine_socket.EngineError("500")
        return real(socket, url, timeout, expected)

    monkeypatch.setattr(store_prune.engine_socket, "get", get)
    assert "expected a Docker engine" in refused()


# What others are working on


def test_a_repository_where_another_run_works_is_left_and_named(call, store):
    lock = store / "models/org--body/.lock"
    lock.write_text("4711")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for check in (True, False):
            result = call(check=check)
            (thing,) = (thing for thing in result["things"] if thing["path"].endswith(COMMITS["old"]))
            assert thing["verdict"] == "kept" and "process 4711" in thing["why"]
    assert (store / "models/org--body" / COMMITS["old"]).is_dir()
    assert not (store / "patches" / SUMS["old"]).exists(), "patches are no part of it"
    assert call()["changed"]
    assert not (store / "models/org--body" / COMMITS["old"]).exists()


def test_while_a_peer_runs_no_model_goes(call, store):
    pid = store / "models/.peer/lock"
    put(pid)
    pid.write_text("4711")
    with pid.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = call()
    why = {thing["path"]: thing["why"] for thing in result["things"]}
    assert "process 4711" in why[str(store / "models/org--body" / COMMITS["old"])]
    assert (store / "models/org--body" / COMMITS["old"]).is_dir()
    call()
    assert not (store / "models/org--body" / COMMITS["old"]).exists(), "its files alone do not hold anything"
    assert pid.exists()


def test_what_came_while_it_looked_is_judged_again(call, store, state, monkeypatch):
    """Between the look and the lock another run may have made more of a repository."""
    real = prune_store.at_work

    def later(folder: Path, keep_out: bool) -> Any:
        put(folder / COMMITS["next"] / "model")
        return real(folder, keep_out)

    monkeypatch.setattr(prune_store, "at_work", later)
    result = call(keep=[COMMITS["next"]])
    assert verdicts(result)[str(store / "models/org--body" / COMMITS["next"])] == "kept"


# Interruptions and leftovers


def test_an_interrupted_run_leaves_no_half_snapshot_and_the_next_one_ends_it(call, store, monkeypatch):
    real = prune_store.remove

    def die(path: Path) -> None:
        if path.exists():
            (path / "deep/model.safetensors").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(prune_store, "remove", die)
    with pytest.raises(KeyboardInterrupt):
        prune_store.delete(next(thing for thing in prune_store.things(store) if COMMITS["old"] in thing.path))
    repository = store / "models/org--body"
    assert not (repository / COMMITS["old"]).exists()
    assert (repository / f".pruned-{COMMITS['old']}").is_dir()
    monkeypatch.setattr(prune_store, "remove", real)
    result = call()
    kinds = sorted(thing["kind"] for thing in result["things"] if thing["verdict"] == "removed")
    assert kinds == ["cache", "image", "leftover", "leftover", "leftover", "patch"]
    assert COMMITS["old"] not in " ".join(listing(store))


def test_a_leftover_of_what_is_kept_now_goes_and_the_kept_stays(call, store):
    put(store / "models/org--body" / f".pruned-{COMMITS['now']}" / "half")
    put(store / "patches" / f".pruned-{SUMS['now']}" / "half")
    call()
    assert of("now") <= listing(store)
    assert ".pruned" not in " ".join(listing(store))


def test_the_program_of_a_unit_stays_as_long_as_a_record_mounts_it(call, store, state):
    programs = store / "supervisor"
    entries = {}
    # Known by its content, too, where the path was another one.
    for name, entry, folder in (("now", "current", programs), ("good", "last_good", Path("/srv/former"))):
        entries[entry] = serving(name)
        entries[entry]["serving"]["files"] = []
        entries[entry]["serving"]["container"]["volumes"] = [f"{folder / SUMS[name]}:/opt/sparkfleet/unit:ro"]
    write_json(state / "state.json", {"version": 1, **entries})
    for name in (*SUMS, "half"):
        put(programs / SUMS.get(name, f".{SUMS['now']}.12345678") / "__main__.py")
    result = call()
    assert {path.name for path in programs.iterdir()} == {SUMS["now"], SUMS["good"]}
    gone = [thing["kind"] for thing in result["things"] if thing["path"].startswith(str(programs))]
    assert sorted(gone) == ["leftover", *["supervisor"] * len(SUMS)]


def test_what_cannot_be_deleted_fails_with_its_reason_and_the_rest_goes(call, store, engine, monkeypatch):
    real = prune_store.delete

    def refuse(thing: Any) -> None:
        if thing.kind == "snapshot":
            raise OSError(30, "Read-only file system")
        real(thing)

    monkeypatch.setattr(prune_store, "delete", refuse)
    result = call()
    assert result["failed"] and "Read-only file system" in result["msg"]
    assert verdicts(result)[str(store / "models/org--body" / COMMITS["old"])] == "failed"
    assert not (store / "patches" / SUMS["old"]).exists()
    assert engine.removed == [IMAGES["old"]]


@pytest.fixture
def cut_short(store: Path) -> Path:
    """The directory of a build that did not end."""
    folder = store / "build"
    for name in ("source/.git/pack", "registry/storage/layer", "build.log", "notes.txt"):
        put(folder / name)
    (folder / ".lock").write_text("4711")
    return folder


def of_build(result: dict[str, Any], folder: Path) -> dict[str, tuple[str, str]]:
    return {
        thing["path"].removeprefix(f"{folder}/"): (thing["kind"], thing["verdict"])
        for thing in result["things"]
        if thing["path"].startswith(str(folder))
    }


def test_what_a_build_that_did_not_end_left_goes_and_its_log_stays(call, cut_short):
    looked, done = call(check=True), call()
    assert of_build(looked, cut_short) == {
        "source": ("leftover", "removed"),
        "registry": ("leftover", "removed"),
        "build.log": ("log", "kept"),
        "notes.txt": ("unknown", "unknown"),
    }
    sizes = [
        thing["bytes"] for thing in looked["things"] if thing["name"] in ("build source", "build registry")
    ]
    assert len(sizes) == 2 and min(sizes) >= SIZE
    assert looked["things"] == done["things"]
    assert sorted(path.name for path in cut_short.iterdir()) == [".lock", "build.log", "notes.txt"]
    assert not call()["changed"]


def test_while_a_build_runs_nothing_of_it_goes(call, cut_short):
    with (cut_short / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for check in (True, False):
            result = call(check=check)
            whole = [thing for thing in result["things"] if thing["kind"] == "leftover"]
            assert len(whole) == 2
            assert all(thing["verdict"] == "kept" and "process 4711" in thing["why"] for thing in whole)
    assert (cut_short / "source/.git/pack").exists()


def test_a_link_in_the_place_of_a_build_is_not_followed(call, cut_short, tmp_path):
    (cut_short / "source").rename(tmp_path / "mine")
    (cut_short / "source").symlink_to(tmp_path / "mine")
    assert of_build(call(), cut_short)["source"] == ("unknown", "unknown")
    assert (tmp_path / "mine/.git/pack").exists()


@pytest.mark.parametrize(("age", "there"), [(3600, True), (100_000, False)])
def test_a_partial_snapshot_goes_when_nobody_has_gone_on_with_it(call, store, age, there):
    partial = store / "models/org--body" / f".partial-{COMMITS['next']}"
    put(partial / "incoming/x")
    moment = (partial / "incoming/x").stat().st_mtime - age
    for path in [*partial.rglob("*"), partial]:
        os.utime(path, (moment, moment))
    call()
    assert partial.exists() is there


def test_one_fresh_file_makes_a_partial_snapshot_fresh(call, store):
    partial = store / "models/org--body" / f".partial-{COMMITS['next']}"
    put(partial / "incoming/x")
    put(partial / "incoming/y")
    then = partial.stat().st_mtime - 100_000
    for path in (partial, partial / "incoming", partial / "incoming/y"):
        os.utime(path, (then, then))
    call()
    assert partial.exists()


# The fleet registry's storage


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    """A storage in the layout of the registry, filled as module image_fetch does it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def blob(self, data: bytes) -> str:
        self.put(oci.blob_path(sha256(data)), data)
        return sha256(data)

    def put(self, path: str, data: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)

    def manifest(self, repository: str, content: dict[str, Any]) -> str:
        digest = self.blob(json.dumps(content).encode())
        self.put(oci.manifest_link(repository, digest), digest.encode())
        return digest

    def image(self, repository: str, *layers: bytes) -> str:
        blobs = [self.blob(data) for data in (b"config" + layers[-1], *layers)]
        for digest in blobs:
            self.put(oci.layer_link(repository, digest), digest.encode())
        entries = [{"digest": digest, "size": 1} for digest in blobs]
        return self.manifest(repository, {"config": entries[0], "layers": entries[1:]})

    def has(self, *data: bytes) -> list[bool]:
        return [(self.root / oci.blob_path(sha256(one))).exists() for one in data]

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}


BASE, OLD, NEW = b"base" * 5000, b"old" * 5000, b"new" * 5000


@pytest.fixture
def registry(store: Path) -> Registry:
    return Registry(store / "registry")


def test_an_image_of_the_registry_goes_with_what_no_other_image_needs(call, registry):
    kept = registry.image("vllm/vllm-openai", BASE, NEW)
    alone = {*registry.files(), ".lock"}
    gone = registry.image("vllm/vllm-openai", BASE, OLD)
    result = call(keep=[kept])
    assert verdicts_of(result, "registry") == {
        f"vllm/vllm-openai@{kept}": "kept",
        f"vllm/vllm-openai@{gone}": "removed",
    }
    assert registry.files() == alone


def test_the_name_of_an_image_that_was_built_here_goes_with_it_and_another_one_stays(call, registry):
    built = {
        tag: registry.image("sparkfleet/vllm-openai", BASE, layer) for tag, layer in (("a", OLD), ("b", NEW))
    }
    for tag, digest in built.items():
        registry.put(oci.tag_link("sparkfleet/vllm-openai", tag), digest.encode())
    call(keep=[built["b"]])
    assert not (registry.root / oci.tag_link("sparkfleet/vllm-openai", "a")).parents[1].exists()
    assert (registry.root / oci.tag_link("sparkfleet/vllm-openai", "b")).read_text() == built["b"]


def test_a_layer_that_stays_is_not_counted_as_freed(call, registry, store):
    call()
    registry.image("vllm/vllm-openai", BASE, OLD)
    alone = call(check=True)["freed_bytes"]
    kept = registry.image("vllm/vllm-openai", BASE, NEW)
    shared = call(check=True, keep=[kept])["freed_bytes"]
    blob = (registry.root / oci.blob_path(sha256(BASE))).parent
    assert alone - shared == usage.measure(blob).size
    assert call(check=True)["freed_bytes"] > alone, "both go, and what they share counts once"


def test_an_index_stays_with_the_manifest_of_its_platform_and_goes_with_it(call, registry):
    inner = registry.image("vllm/vllm-openai", BASE, NEW)
    others = {"digest": "sha256:" + "0" * 64}
    index = registry.manifest("vllm/vllm-openai", {"manifests": [others, {"digest": inner}]})
    for name in (index, inner):
        result = call(keep=[name])
        assert verdicts_of(result, "registry") == {f"vllm/vllm-openai@{index}": "kept"}
    call()
    assert registry.files() == {".lock"}


def test_an_attestation_stays_with_the_index_and_goes_with_it(call, registry):
    inner, attestation = (
        registry.image("vllm/vllm-openai", BASE, NEW),
        registry.image("vllm/vllm-openai", OLD),
    )
    refers = {"annotations": {oci.ATTESTS: inner}}
    manifests = [{"digest": inner}, {"digest": attestation, **refers}]
    index = registry.manifest("vllm/vllm-openai", {"manifests": manifests})
    before = registry.files()
    # The lock names the index alone.
    result = call(keep=[index])
    assert verdicts_of(result, "registry") == {f"vllm/vllm-openai@{index}": "kept"}
    assert registry.files() == before
    call()
    assert registry.files() == {".lock"}


def test_a_manifest_that_two_indexes_name_stays_with_the_other(call, registry):
    inner = registry.image("vllm/vllm-openai", BASE, NEW)
    kept = registry.manifest("vllm/vllm-openai", {"manifests": [{"digest": inner}]})
    before = registry.files() | {".lock"}
    registry.manifest("vllm/vllm-openai", {"manifests": [{"digest": inner}], "annotations": {}})
    # The lock names the index alone.
    assert call(keep=[kept])["changed"]
    assert registry.files() == before


def test_an_index_is_not_offered_any_more_when_its_removal_has_begun(registry, monkeypatch):
    inner = registry.image("vllm/vllm-openai", BASE)
    # Whichever sorts first, the index goes first.
    for number in range(8):
        index = registry.manifest("vllm/vllm-openai", {"manifests": [{"digest": inner}], "number": number})
        removed: list[Path] = []
        monkeypatch.setattr(prune_registry, "remove", removed.append)
        (thing,) = (thing for thing in prune_registry.things(registry.root) if index in thing.name)
        prune_registry.delete(thing)
        assert removed[0] == (registry.root / oci.manifest_link("vllm/vllm-openai", index)).parent
        (registry.root / oci.manifest_link("vllm/vllm-openai", index)).unlink()


def test_what_two_repositories_share_stays_with_the_other(call, registry):
    gone = registry.image("vllm", BASE)
    kept = registry.manifest(
        "vllm/vllm-openai", {"config": {"digest": sha256(BASE)}, "layers": [{"digest": sha256(BASE)}]}
    )
    assert gone != kept
    call(keep=[kept])
    assert registry.has(BASE) == [True]
    assert (registry.root / oci.manifest_link("vllm/vllm-openai", kept)).exists()
    assert not (registry.root / oci.manifest_link("vllm", gone)).exists()


def test_an_interrupted_removal_is_ended_by_the_next_run(call, registry, monkeypatch):
    gone = registry.image("vllm/vllm-openai", BASE, OLD)
    real, left = prune_registry.remove, [2]

    def die(path: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(path)

    thing = next(thing for thing in prune_registry.things(registry.root) if gone in thing.name)
    monkeypatch.setattr(prune_registry, "remove", die)
    with pytest.raises(KeyboardInterrupt):
        prune_registry.delete(thing)
    assert not (registry.root / oci.manifest_link("vllm/vllm-openai", gone)).exists(), (
        "nobody is offered half"
    )
    monkeypatch.setattr(prune_registry, "remove", real)
    call(partial_age=0)
    assert registry.has(BASE, OLD) == [False, False]


def test_what_is_on_its_way_into_the_registry_stays_and_what_was_given_up_goes(call, registry):
    registry.blob(OLD)
    registry.put(".partial/abc", OLD)
    assert verdicts_of(call(), "registry partial") == {"of no whole image": "kept"}
    assert registry.has(OLD) == [True]
    call(partial_age=0)
    assert registry.has(OLD) == [False] and not (registry.root / ".partial").exists()


def test_where_a_fetch_works_nothing_goes(call, registry):
    registry.image("vllm/vllm-openai", BASE, OLD)
    before = registry.files() | {".lock"}
    with (registry.root / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = call(partial_age=0)
    (thing,) = (thing for thing in result["things"] if thing["kind"] == "registry")
    assert thing["verdict"] == "kept" and "another run works in" in thing["why"]
    assert registry.files() == before


@pytest.mark.parametrize("damage", ["gone", "other bytes"])
def test_a_manifest_that_cannot_be_read_keeps_the_whole_storage(call, registry, damage):
    registry.image("vllm/vllm-openai", BASE, OLD)
    broken = registry.image("vllm/vllm-openai", BASE, NEW)
    path = registry.root / oci.blob_path(broken)
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes() + b" ")
    before = registry.files()
    result = call(partial_age=0)
    (thing,) = (thing for thing in result["things"] if thing["path"] == str(registry.root))
    assert thing["verdict"] == "unknown" and str(path) in thing["why"]
    assert registry.files() == before


@pytest.mark.parametrize("text", ["no json", "[]", '{"config": 1}', '{"layers": []}', "[" * 100_000])
def test_a_manifest_of_another_shape_keeps_the_whole_storage(call, registry, text):
    registry.image("vllm/vllm-openai", BASE, OLD)
    broken = registry.blob(text.encode())
    registry.put(oci.manifest_link("vllm/vllm-openai", broken), broken.encode())
    path = registry.root / oci.blob_path(broken)
    before = registry.files()
    result = call(partial_age=0)
    (thing,) = (thing for thing in result["things"] if thing["path"] == str(registry.root))
    assert thing["verdict"] == "unknown" and str(path) in thing["why"]
    assert registry.files() == before


@pytest.mark.parametrize("name", ["sha256:{victim}", "sha256:../../../../../../victim", "sha256:"])
@pytest.mark.parametrize("key", ["config", "manifests"])
def test_nothing_outside_the_storage_goes_whatever_an_image_names(call, registry, tmp_path, name, key):
    victim = tmp_path / "victim"
    put(victim / "data")
    entry = {"digest": name.format(victim=victim)}
    inner = registry.image("vllm/vllm-openai", BASE, OLD)
    # Good in every way that a fetch looks at: the host's platform is there, and it has a configuration besides.
    platform = {"os": "linux", "architecture": "arm64"}
    content: dict[str, Any] = {"manifests": [{"digest": inner, "platform": platform}]}
    if key == "config":
        content |= {"config": entry, "layers": []}
    else:
        content["manifests"].append(entry)
    registry.manifest("vllm/vllm-openai", content)
    before = registry.files()
    result = call(partial_age=0)
    (thing,) = (thing for thing in result["things"] if thing["path"] == str(registry.root))
    assert thing["verdict"] == "unknown" and "expected sha256: and 64 hexadecimal digits" in thing["why"]
    assert registry.files() == before and (victim / "data").exists()


def test_a_revision_that_is_no_digest_keeps_the_whole_storage(call, registry):
    registry.image("vllm/vllm-openai", BASE, OLD)
    registry.put(f"{oci.ROOT}/repositories/vllm/_manifests/revisions/sha256/x/link", b"sha256:x")
    before = registry.files()
    result = call(partial_age=0)
    (thing,) = (thing for thing in result["things"] if thing["path"] == str(registry.root))
    assert thing["verdict"] == "unknown" and "sha256:x, which is no digest" in thing["why"]
    assert registry.files() == before


def test_a_removal_stays_inside_the_storage(registry, tmp_path, monkeypatch):
    """Held even if what computes the paths is wrong one day."""
    victim = tmp_path / "victim"
    put(victim / "data")
    registry.image("vllm/vllm-openai", BASE, OLD)
    (thing,) = prune_registry.things(registry.root)
    for path in (victim, registry.root / ".." / "victim", registry.root):
        monkeypatch.setattr(prune_registry, "_blob", lambda _root, _digest, path=path: path)
        with pytest.raises(PermissionError, match="expected a path below"):
            prune_registry.delete(thing)
        registry.image("vllm/vllm-openai", BASE, OLD)
    assert (victim / "data").exists() and registry.root.is_dir()


def test_a_storage_that_lies_behind_a_link_is_left(call, registry, tmp_path):
    registry.image("vllm/vllm-openai", BASE, OLD)
    blobs = registry.root / oci.ROOT / "blobs"
    blobs.rename(tmp_path / "blobs")
    blobs.symlink_to(tmp_path / "blobs")
    before = registry.files()
    call(partial_age=0)
    assert registry.files() == before and registry.has(OLD) == [True]


def verdicts_of(result: dict[str, Any], kind: str) -> dict[str, str]:
    return {thing["name"]: thing["verdict"] for thing in result["things"] if thing["kind"] == kind}


# Only inside the store, only what has its names


@pytest.mark.parametrize(
    "foreign",
    [
        "notes.txt",
        "lost+found/x",
        "models/README",
        "models/just-a-name/x",
        f"models/just-a-name/{'a' * 40}/x",
        "models/org--body/main/config.json",
        f"models/org--body/{'A' * 40}/x",
        f"models/org--body/{'a' * 39}/x",
        "models/org--body/.cache/x",
        "patches/README",
        "patches/abc/x.py",
        "supervisor/README",
        "supervisor/abc/x.py",
        "cache/notes.txt",
        "cache/mine/x",
        "cache/compiled/README",
        "cache/compiled/abc/x",
    ],
)
def test_what_others_put_there_is_listed_and_left(call, store, foreign):
    put(store / foreign)
    result = call()
    assert (store / foreign).is_file()
    (thing,) = (thing for thing in result["things"] if thing["verdict"] == "unknown")
    assert str(store / foreign).startswith(thing["path"]) and thing["bytes"] >= SIZE


@pytest.mark.parametrize(
    "place",
    [
        f"models/org--body/{COMMITS['next']}",
        "models/org--other",
        f"patches/{SUMS['next']}",
        f"supervisor/{SUMS['next']}",
        "models/org--body/.partial-" + COMMITS["next"],
        f"cache/compiled/{SUMS['next']}",
        "cache/vllm",
    ],
)
def test_a_link_is_neither_followed_nor_removed(call, store, tmp_path, place):
    outside = tmp_path / "outside"
    put(outside / COMMITS["next"] / "x")
    (store / place).parent.mkdir(exist_ok=True)
    (store / place).symlink_to(outside)
    result = call(partial_age=0)
    assert (store / place).is_symlink() and (outside / COMMITS["next"] / "x").is_file()
    assert verdicts(result)[str(store / place)] == "unknown"


@pytest.mark.parametrize("area", ["models", "patches"])
def test_an_area_that_is_a_link_is_left(call, store, tmp_path, area):
    (store / area).rename(tmp_path / "outside")
    (store / area).symlink_to(tmp_path / "outside")
    before = listing(tmp_path / "outside")
    call()
    assert listing(tmp_path / "outside") == before


def test_a_link_inside_a_snapshot_goes_and_its_target_stays(call, store, tmp_path):
    put(tmp_path / "outside/x")
    (store / "models/org--body" / COMMITS["old"] / "link").symlink_to(tmp_path / "outside")
    call()
    assert not (store / "models/org--body" / COMMITS["old"]).exists()
    assert (tmp_path / "outside/x").is_file()


def test_an_empty_store_and_none_at_all_are_nothing_to_do(call, tmp_path, state):
    (state / "images.json").unlink()
    assert not call(store=str(tmp_path / "nowhere"))["changed"]
    assert not (tmp_path / "nowhere").exists()


def test_mount_points_with_spaces(tmp_path):
    (tmp_path / "mountinfo").write_text("36 35 98:0 /mnt1 /mnt\\0402 rw - ext3 /dev/root rw\n")
    assert prune_store.mount_points(tmp_path / "mountinfo") == ["/mnt 2"]


def test_mount_points_are_bytes(tmp_path):
    (tmp_path / "mountinfo").write_bytes(b"36 35 98:0 / /mnt\xff rw - ext3 /dev/root rw\n")
    assert [os.fsencode(path) for path in prune_store.mount_points(tmp_path / "mountinfo")] == [b"/mnt\xff"]


def test_what_is_mounted_in_a_snapshot_keeps_it(call, store, monkeypatch):
    place = str(store / "models/org--body" / COMMITS["old"] / "deep")
    monkeypatch.setattr(prune_store, "mount_points", lambda: ["/", place])
    result = call()
    assert (store / "models/org--body" / COMMITS["old"]).is_dir()
    assert place in " ".join(thing["why"] for thing in result["things"])
