"""The module, with git itself, a registry that is spoken to over HTTP, and an engine that is played."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import docker
import docker.errors
import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._build import buildkit, staging
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import upstream
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import storage
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.reference import parse_reference
from ansible_collections.sparkfleet.vllm.plugins.module_utils._prune import store
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import memory
from ansible_collections.sparkfleet.vllm.plugins.modules import image_build
from helpers.build import Engine, Repository, program, registry


class Host:
    """A host that builds: `run` is one run of the module there."""

    def __init__(self, folder: Path, capsys) -> None:
        self.folder, self._capsys = folder, capsys
        self.repository = Repository(folder / "git")
        self.commit = self.repository.commits[1]
        self.name = f"sparkfleet/vllm-openai:main-{self.commit[:12]}"
        self.storage, self.directory = folder / "registry", folder / "build"
        self.storage.mkdir()
        self.engine = Engine(folder)
        self.program = program(folder)
        self.warned: list[str] = []

    def run(self, **options):
        arguments = {
            "name": self.name,
            "repository": "owner/name",
            "commit": self.commit,
            "git_endpoint": self.repository.endpoint,
            "directory": str(self.directory),
            "storage": str(self.storage),
            "registry_program": self.program,
            "minimum_memory_gib": 0,
            "minimum_docker_gib": 0,
            "minimum_store_gib": 0,
        } | options
        given = {key: value for key, value in arguments.items() if value is not None}
        with patch_module_args(given), pytest.raises(SystemExit):
            image_build.main()
        return json.loads(self._capsys.readouterr().out)

    def left(self):
        """What is in its directory, but for the lock."""
        return sorted(path.name for path in self.directory.iterdir() if path.name != ".lock")

    def tagged(self):
        return storage.tagged(str(self.storage), parse_reference(self.name))


@pytest.fixture
def host(tmp_path, capsys, monkeypatch):
    made = Host(tmp_path, capsys)
    monkeypatch.setattr(docker, "from_env", lambda **_options: made.engine)
    monkeypatch.setattr(image_build.AnsibleModule, "warn", lambda _module, text: made.warned.append(text))
    monkeypatch.setattr(upstream.time, "sleep", lambda _seconds: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return made


def test_it_is_built_once_and_named_in_the_storage_of_the_fleets_registry(host):
    result = host.run(target="vllm-openai", arguments={"a": "1"}, host_arguments={"max_jobs": 16})
    assert (result["changed"], result["state"]) == (True, "built"), result
    assert host.tagged() == result["digest"]
    (build,) = host.engine.builds()
    assert build.startswith("1 build ")
    assert "--target=vllm-openai" in build
    assert "--build-arg=a=1" in build
    assert "--build-arg=max_jobs=16" in build
    again = host.run(target="vllm-openai", arguments={"a": "1"})
    assert (again["changed"], again["state"], again["digest"]) == (False, "present", result["digest"])
    assert len(host.engine.builds()) == 1


def test_a_registry_serves_what_is_in_the_storage_by_tag_and_by_digest(host):
    result = host.run()
    with registry(host.storage) as server:
        for what in (host.name.rpartition(":")[2], result["digest"]):
            url = f"http://{server.address}/v2/sparkfleet/vllm-openai/manifests/{what}"
            with urllib.request.urlopen(url) as answer:
                manifest = json.load(answer)
        blob = manifest["layers"][0]["digest"]
        with urllib.request.urlopen(
            f"http://{server.address}/v2/sparkfleet/vllm-openai/blobs/{blob}"
        ) as answer:
            assert answer.read() == b"layer of build 1"


def test_nothing_but_the_log_is_left_on_the_host(host):
    host.run()
    assert host.left() == ["build.log"]
    assert "csrc-build" in (host.directory / "build.log").read_text()
    assert host.engine.names == []


def test_other_arguments_make_another_image_of_the_same_name(host):
    first = host.run(arguments={"a": "1"})
    second = host.run(arguments={"a": "2"})
    assert second["changed"]
    assert host.tagged() == second["digest"] != first["digest"]


def test_how_much_is_compiled_at_a_time_makes_no_other_image(host):
    host.run(host_arguments={"max_jobs": "16"})
    assert not host.run(host_arguments={"max_jobs": "2"})["changed"]


def test_an_image_of_which_a_part_is_gone_is_built_again(host):
    host.run()
    max((host.storage / "docker").rglob("data"), key=lambda path: path.stat().st_size).unlink()
    assert host.run()["changed"]


def test_check_mode_says_what_would_be_built_and_does_nothing(host):
    before = sorted(host.folder.rglob("*"))
    result = host.run(_ansible_check_mode=True, _ansible_diff=True, target="vllm-openai")
    assert (result["changed"], result["digest"]) == (True, "")
    assert result["todo"][0] == f"{host.name} from owner/name at {host.commit}"
    assert "stage vllm-openai" in result["diff"]["after"]
    assert sorted(host.folder.rglob("*")) == before
    built = host.run(target="vllm-openai")
    assert host.run(_ansible_check_mode=True, target="vllm-openai")["digest"] == built["digest"]


def test_a_look_builds_nothing(host):
    looked = host.run(settled_only=True)
    assert (looked["changed"], looked["settled"]) == (False, False)
    assert "digest" not in looked
    assert host.engine.builds() == []
    host.run()
    assert host.run(settled_only=True)["settled"]


def test_a_build_that_fails_shows_the_end_of_its_log_and_names_nothing(host):
    host.engine.says.write_text("#5 ERROR: process did not complete: Killed\n")
    result = host.run()
    assert result["failed"]
    assert "process did not complete: Killed" in result["msg"]
    assert "image_build_host_arguments" in result["msg"]
    assert str(host.directory / "build.log") in result["msg"]
    assert host.left() == ["build.log"]
    assert host.tagged() == ""
    host.engine.says.unlink()
    assert host.run()["changed"]


def test_wrong_bytes_of_a_push_get_no_name(host, tmp_path):
    host.program = program(tmp_path, "spoil")
    result = host.run()
    assert "fetched 2 times" in result["msg"]
    assert host.tagged() == ""
    assert host.engine.names == []


def test_a_push_that_is_refused_names_nothing(host):
    host.engine.refuses = "received unexpected HTTP status: 500"
    assert "expected the engine to push the image" in host.run()["msg"]
    assert host.left() == ["build.log"]
    assert host.tagged() == ""
    assert host.engine.names == []


def test_of_a_build_that_was_killed_or_fails_the_engine_keeps_no_name(host, monkeypatch):
    host.engine.names = ["somebody/else:1", buildkit.passing_name(str(host.directory))]
    build, before = image_build.build, list[str]()

    def begins(*arguments):
        before.extend(host.engine.names)
        build(*arguments)

    monkeypatch.setattr(image_build, "build", begins)
    host.engine.says.write_text("#5 ERROR: process did not complete\n")
    assert host.run()["failed"]
    # An image that loses its name to another one stays, without any.
    assert before == host.engine.names == ["somebody/else:1"]


def test_an_engine_that_keeps_images_in_containerd_tells_the_digest_in_words(host):
    host.engine.containerd = True
    result = host.run()
    assert result["changed"] and host.tagged() == result["digest"]
    assert host.engine.names == host.warned == []
    (build,) = host.engine.builds()
    assert f"--tag={buildkit.passing_name(str(host.directory))} " in build


def test_an_engine_that_lacks_a_part_of_the_index_pushes_the_image_and_that_is_told(host):
    host.engine.containerd, host.engine.index = True, "sha256:" + "1" * 64
    result = host.run()
    assert host.tagged() == result["digest"] != host.engine.index
    assert f"expected {host.engine.index} to be pushed" in host.warned[0]


def test_a_client_that_builds_elsewhere_is_told(host):
    host.engine.elsewhere.touch()
    result = host.run()
    assert "docker buildx use default" in result["msg"] and host.tagged() == ""


def test_a_name_that_cannot_be_taken_away_is_told_and_the_build_counts(host, monkeypatch):
    def refuse(name, noprune):
        raise docker.errors.APIError(f"conflict: {name} is in use")

    monkeypatch.setattr(host.engine.images, "remove", refuse)
    result = host.run()
    assert host.tagged() == result["digest"]
    assert any("do: docker rmi 127.0.0.1:" in text for text in host.warned)


def test_room_is_measured_where_the_engine_keeps_images(host, monkeypatch):
    info = {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
    monkeypatch.setattr(host.engine, "info", lambda: {"DockerRootDir": str(host.engine.folder), **info})
    result = host.run(minimum_docker_gib=1_000_000)
    assert "containerd: expected 1000000 GiB free" in result["msg"] and host.engine.builds() == []


def test_what_a_run_that_was_cut_short_left_is_in_nobodys_way(host):
    left = host.directory / "registry" / "storage" / "docker"
    left.mkdir(parents=True)
    (left / "half").write_text("")
    (host.directory / "source").mkdir()
    there: list[bool] = []
    host.engine.before_push = lambda: there.append(left.exists())
    assert host.run()["changed"]
    assert there == [False]


def test_a_build_at_work_is_seen_by_prune_and_by_another_build(host, monkeypatch):
    monkeypatch.setattr(image_build, "LOCK_TIMEOUT", 0.0)
    seen: list[str] = []

    def meanwhile() -> None:
        seen.append(store.holder(host.directory / ".lock"))
        seen.append(host.run(arguments={"a": "another"})["msg"])

    host.engine.before_push = meanwhile
    assert host.run()["changed"]
    assert seen[0] == f"process {os.getpid()}"
    assert f"seen process {os.getpid()} still at work there" in seen[1]
    assert len(host.engine.builds()) == 1
    assert store.holder(host.directory / ".lock") == ""


def test_room_is_asked_for_before_anything_begins(host, monkeypatch):
    monkeypatch.setattr(memory, "meminfo", lambda _proc: {"MemAvailable": 5 * memory.GIB})
    result = host.run(minimum_memory_gib=32, minimum_docker_gib=10**6, minimum_store_gib=10**6)
    assert "memory: expected 32 GiB available, seen 5.0; stop what serves" in result["msg"]
    assert f"{host.folder}: expected 1000000 GiB free" in result["msg"]
    assert f"{host.directory}: expected 1000000 GiB free" in result["msg"]
    assert host.engine.builds() == []
    assert not host.directory.exists()


def test_a_host_that_does_not_serve_images_is_told_before_the_build(host):
    host.storage.rmdir()
    assert "build_host" in host.run()["msg"]
    assert host.engine.builds() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "sparkfleet/vllm-openai"}, "expected a tag or a digest"),
        ({"name": f"a/b:t@sha256:{'0' * 64}"}, "a tag and no digest"),
        ({"commit": "main"}, "40 lower-case hex digits"),
    ],
)
def test_what_pins_nothing_is_refused(host, options, says):
    assert says in host.run(**options)["msg"]


def test_another_registry_gets_it_by_the_engines_push(host, tmp_path):
    with registry(tmp_path / "elsewhere") as server:
        options = {"storage": None, "push_to": f"http://{server.address}/"}
        result = host.run(**options)
        assert result["changed"], result
        assert result["where"] == f"http://{server.address}"
        again = host.run(**options)
        assert (again["changed"], again["digest"]) == (False, result["digest"])
        assert host.run(**options, arguments={"a": "2"})["changed"]
    assert len(host.engine.builds()) == 2
    assert host.tagged() == ""


def test_a_registry_that_does_not_answer_is_told_before_the_build(host):
    result = host.run(storage=None, push_to="http://127.0.0.1:9")
    assert "expected an answer" in result["msg"]
    assert host.engine.builds() == []


def test_the_registry_of_a_push_is_there_for_as_long_as_that(tmp_path):
    with staging.registry(program(tmp_path), tmp_path / "s") as address:
        assert address.startswith("127.0.0.1:")
        with urllib.request.urlopen(f"http://{address}/v2/") as answer:
            assert answer.status == 200
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{address}/v2/")


def test_one_that_does_not_come_up_is_told_with_what_it_said(tmp_path):
    with (
        pytest.raises(staging.StagingError, match="configuration error: no such thing"),
        staging.registry(program(tmp_path, "die"), tmp_path / "s"),
    ):
        pass


def test_one_that_is_not_installed_is_told(tmp_path):
    with (
        pytest.raises(staging.StagingError, match="install the registry's package"),
        staging.registry(str(tmp_path / "none"), tmp_path / "s"),
    ):
        pass
