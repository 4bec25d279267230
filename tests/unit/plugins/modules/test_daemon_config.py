from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import packages, pinned
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import (
    daemon_json,
    engine_socket,
    probes,
    toolkit,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import engine as docker
from ansible_collections.sparkfleet.vllm.plugins.modules import daemon_config, python_environment
from helpers import printed
from helpers.server import Handler, UnixServer, served

SERVING = [{"name": "sparkfleet-vllm"}]


class Dockerd:
    """An engine as the probes show it: it follows its file at SIGHUP or restart, unless it is told not to."""

    def __init__(self, path) -> None:
        self.path = path
        self.running = True
        self.version: str | None = "20.10.24"
        self.flags: list[str] = []
        self.snap = False
        self.containers: list[dict[str, Any]] = []
        self.live_restore = False
        self.follows = True
        self.pid = 700
        self.did: list[str] = []
        self.content = self._read()
        self.snapshotter = False

    def _read(self) -> dict[str, Any]:
        return daemon_json.parse(self.path.read_text()) if self.path.exists() else {}

    def follow(self) -> None:
        if self.follows:
            self.content = self._read()

    def start(self) -> None:
        self.pid += 1
        self.follow()
        self.snapshotter = bool((self.content.get("features") or {}).get("containerd-snapshotter"))

    def probe(self, request) -> dict[str, Any]:
        return {
            "installed": True,
            "running": self.running,
            "pid": self.pid,
            "started": 1.0,
            "flags": self.flags,
            "version": self.version,
            "snap": self.snap,
            "containers": self.containers,
            "live_restore": bool(self.content.get("live-restore", self.live_restore)),
            "registry_mirrors": [f"{m}/" for m in self.content.get("registry-mirrors", [])],
            "insecure_registries": self.content.get("insecure-registries", []),
            "containerd_snapshotter": self.snapshotter,
            "runtimes": ["runc", *self.content.get("runtimes", {})],
        } | ({} if self.version else {"silent": "timed out"})

    def kill(self, pid: int, number: int) -> None:
        assert (pid, number) == (self.pid, signal.SIGHUP)
        self.did.append("reload")
        self.follow()

    def run_command(self, module, argv, **kwargs):
        if argv[:2] == ["systemctl", "restart"]:
            self.did.append("restart")
            self.start()
            if "no-such-key" in self._read():
                return 1, "", "Job for docker.service failed"
        if argv[0] == "journalctl":
            return 0, "started\nunable to configure: no-such-key\n", ""
        if argv[0] == "dockerd":
            self.did.append("validate")
            return (
                (1, "", "no-such-key")
                if "no-such-key" in open(argv[-1]).read()
                else (0, "configuration OK", "")
            )
        return 0, "", ""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "docker/daemon.json"


@pytest.fixture
def dockerd(path, monkeypatch):
    host = Dockerd(path)
    monkeypatch.setattr(docker, "look", host.probe)
    monkeypatch.setattr(toolkit, "look", lambda request, seen: {"unseen": False})
    monkeypatch.setattr(os, "kill", host.kill)
    monkeypatch.setattr(
        daemon_config.AnsibleModule,
        "run_command",
        lambda self, argv, **k: host.run_command(self, argv, **k),
    )
    return host


def run(capsys, module, **arguments):
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    return printed.result(capsys.readouterr().out)


def merge(capsys, path, **arguments):
    return run(capsys, daemon_config, path=str(path), timeout=0.5, **arguments)


def test_a_mirror_is_reloaded_and_stays(capsys, path, dockerd):
    dockerd.containers = SERVING
    result = merge(capsys, path, registry_mirrors=["http://m"], nvidia_runtime=True)
    assert (result["changed"], result["changed_keys"], result["action"]) == (
        True,
        ["registry-mirrors", "runtimes"],
        "reload",
    )
    assert "backup_file" not in result, "there was nothing to keep"
    assert path.stat().st_mode & 0o777 == 0o644
    again = merge(capsys, path, registry_mirrors=["http://m"], nvidia_runtime=True)
    assert (again["changed"], again["action"]) == (False, "none")
    assert dockerd.did == ["reload"]


def test_check_mode_shows_and_does_nothing(capsys, path, dockerd):
    result = merge(
        capsys, path, config={"log-opts": {"max-size": "5m"}}, _ansible_check_mode=True, _ansible_diff=True
    )
    assert (result["changed"], result["action"]) == (True, "restart")
    assert '"max-size": "5m"' in result["diff"]["after"] and result["diff"]["before"] == ""
    assert not path.exists() and dockerd.did == []


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("flags", "config"),
    [(["max-concurrent-downloads"], {"max-concurrent-downloads": 3}), (["hosts"], {"hosts": ["fd://"]})],
)
def test_a_key_that_dockerd_has_as_a_flag_is_refused_before_anything_is_written(
    capsys, path, dockerd, flags, config, check
):
    dockerd.flags = flags
    result = merge(capsys, path, config=config, _ansible_check_mode=check)
    assert result["failed"] and f"dockerd runs with {flags[0]} as a flag too" in result["msg"]
    assert not path.exists() and dockerd.did == []


def test_another_image_store_restarts_the_engine_once(capsys, path, dockerd):
    config = {"features": {"containerd-snapshotter": True}}
    dockerd.version = "29.7.2"
    first = merge(capsys, path, config=config)
    assert (first["action"], dockerd.did[-1], dockerd.snapshotter) == ("restart", "restart", True)
    assert "is pulled again" in first["because"][0] and "stays on the disk" in first["because"][0]
    assert merge(capsys, path, config=config)["changed"] is False
    dockerd.snapshotter = False
    assert merge(capsys, path, config=config)["action"] == "restart", "it lost it"


@pytest.mark.parametrize(
    ("version", "more", "said"),
    [
        ("20.10.24", {}, "needs Docker 23 or later, and this is 20.10.24"),
        ("29.7.2", {"storage-driver": "overlay2"}, "storage-driver overlay2 is none of containerd"),
    ],
)
def test_an_image_store_that_no_restart_would_bring_stops_nothing(capsys, path, dockerd, version, more, said):
    dockerd.version, dockerd.containers = version, SERVING
    config = {"features": {"containerd-snapshotter": True}} | more
    result = merge(capsys, path, config=config, restart="always")
    assert result["failed"] and said in result["msg"]
    assert not path.exists() and dockerd.did == []


@pytest.mark.parametrize("live", [True, False])
def test_what_live_restore_would_lose_sight_of_is_stopped_before_the_restart(
    capsys, path, dockerd, monkeypatch, live
):
    dockerd.version, dockerd.containers, dockerd.live_restore = "29.7.2", SERVING, live
    monkeypatch.setattr(
        engine_socket, "stop", lambda socket, name, timeout: dockerd.did.append(f"stop {name}")
    )
    config = {"features": {"containerd-snapshotter": True}}
    assert merge(capsys, path, config=config, restart="always")["stopped"] == ["sparkfleet-vllm"]
    # Without it the engine stops them itself.
    assert dockerd.did == ["validate", *(["stop sparkfleet-vllm"] if live else []), "restart"]


def test_a_container_that_does_not_stop_leaves_all_as_it_is(capsys, path, dockerd, monkeypatch):
    def refuse(socket, name, timeout):
        raise engine_socket.EngineError(f"{name}: 500 cannot stop")

    dockerd.version, dockerd.containers, dockerd.live_restore = "29.7.2", SERVING, True
    monkeypatch.setattr(engine_socket, "stop", refuse)
    result = merge(capsys, path, config={"features": {"containerd-snapshotter": True}}, restart="always")
    assert result["failed"] and "cannot stop" in result["msg"]
    assert not path.exists() and "restart" not in dockerd.did


@pytest.mark.parametrize(("status", "fails"), [(204, False), (304, False), (404, False), (500, True)])
def test_a_container_is_stopped_by_its_name(tmp_path, status, fails):
    asked = []

    class Answers(Handler):
        def do_POST(self):
            asked.append(self.path)
            self.answer(status)

    socket = str(tmp_path / "docker.sock")
    with served(UnixServer(socket, Answers)):
        if fails:
            with pytest.raises(engine_socket.EngineError):
                engine_socket.stop(socket, "a/b", 5)
        else:
            engine_socket.stop(socket, "a/b", 5)
    assert asked == ["/containers/a%2Fb/stop"]


@pytest.mark.parametrize("check", [True, False])
def test_a_restart_that_stops_a_container_is_refused_before_anything_is_written(capsys, path, dockerd, check):
    dockerd.containers = SERVING
    result = merge(capsys, path, config={"log-opts": {}}, _ansible_check_mode=check)
    assert result["failed"] and "it would stop sparkfleet-vllm" in result["msg"]
    assert not path.exists() and dockerd.did == []


def test_always_stops_it_and_says_so(capsys, path, dockerd):
    dockerd.containers = SERVING
    result = merge(capsys, path, config={"log-opts": {}}, restart="always")
    assert (result["stopped"], dockerd.did) == (["sparkfleet-vllm"], ["restart"])


def test_what_is_there_is_kept_and_backed_up(capsys, path, dockerd):
    path.parent.mkdir()
    path.write_text('{\n  "debug": true\n}\n')
    dockerd.follow()
    result = merge(capsys, path, registry_mirrors=["http://m"])
    assert path.read_text() == '{\n  "debug": true,\n  "registry-mirrors": [\n    "http://m"\n  ]\n}\n'
    assert Path(result["backup_file"]).read_text() == '{\n  "debug": true\n}\n'


def test_a_lost_reload_is_made_up_for_without_touching_the_file(capsys, path, dockerd):
    path.parent.mkdir()
    path.write_text('{"registry-mirrors": ["http://m"]}')
    result = merge(capsys, path, registry_mirrors=["http://m"])
    assert (result["changed"], result["changed_keys"], dockerd.did) == (True, [], ["reload"])
    assert path.read_text() == '{"registry-mirrors": ["http://m"]}'


def test_the_file_is_put_back_when_the_engine_does_not_start(capsys, path, dockerd):
    path.parent.mkdir()
    path.write_text('{"debug": true}')
    result = merge(capsys, path, config={"no-such-key": 1})
    assert result["failed"] and "unable to configure: no-such-key" in result["msg"]
    assert "is as it was, and the engine runs with it" in result["msg"]
    assert path.read_text() == '{"debug": true}'
    assert dockerd.did == ["restart", "restart"]


def test_the_file_is_put_back_when_a_reload_is_not_followed(capsys, path, dockerd):
    dockerd.follows = False
    result = merge(capsys, path, registry_mirrors=["http://m"])
    assert "the engine does not show registry-mirrors" in result["msg"]
    assert not path.exists() and dockerd.did == ["reload", "reload"]


def test_a_recent_engine_reads_the_file_before_it_is_in_place(capsys, path, dockerd):
    dockerd.version = "29.1.3"
    result = merge(capsys, path, config={"no-such-key": 1})
    assert result["failed"] and "untouched" in result["msg"]
    assert not path.exists() and dockerd.did == ["validate"]


def test_a_toolkit_that_came_later_restarts_an_idle_engine(capsys, path, dockerd, monkeypatch):
    monkeypatch.setattr(toolkit, "look", lambda request, seen: {"unseen": True})
    merge(capsys, path, nvidia_runtime=False)
    assert dockerd.did == []
    result = merge(capsys, path, nvidia_runtime=True)
    assert result["because"] == [daemon_json.TOOLKIT_UNSEEN] and dockerd.did == ["restart"]


def test_an_engine_that_is_stopped_gets_its_file(capsys, path, dockerd):
    dockerd.running = False
    result = merge(capsys, path, config={"log-opts": {}})
    assert (result["changed"], result["action"], dockerd.did) == (True, "none", [])
    assert path.exists()


def test_an_engine_that_is_silent_is_not_guessed_about(capsys, path, dockerd):
    dockerd.version = None
    result = merge(capsys, path, config={"debug": True})
    assert "timed out" in result["msg"] and not path.exists()


def test_a_file_with_a_byte_order_mark_is_merged(capsys, path, dockerd):
    path.parent.mkdir()
    path.write_bytes(b'\xef\xbb\xbf{"debug": true}')
    merge(capsys, path, registry_mirrors=["http://m"])
    assert json.loads(path.read_bytes()) == {"debug": True, "registry-mirrors": ["http://m"]}


def test_the_file_is_on_the_disk_before_it_has_its_name(capsys, path, dockerd, monkeypatch):
    done: list[Any] = []
    fsync = os.fsync
    move = daemon_config.AnsibleModule.atomic_move

    def seen(handle):
        fsync(handle)
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")))

    def moved(module, source, target):
        done.append("moved")
        move(module, source, target)

    monkeypatch.setattr(os, "fsync", seen)
    monkeypatch.setattr(daemon_config.AnsibleModule, "atomic_move", moved)
    merge(capsys, path, registry_mirrors=["http://m"])
    draft, *rest = done
    assert draft.parent == path.parent and rest == ["moved", path.parent]
    assert os.listdir(path.parent) == ["daemon.json"]


def test_a_full_disk_leaves_the_file_and_the_engine(capsys, path, dockerd, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    path.parent.mkdir()
    path.write_text('{"debug": true}')
    monkeypatch.setattr(os, "fsync", full)
    result = merge(capsys, path, registry_mirrors=["http://m"], backup=False)
    assert f"expected to write {path}, seen: No space left" in result["msg"] and dockerd.did == []
    assert path.read_text() == '{"debug": true}' and os.listdir(path.parent) == ["daemon.json"]


def test_an_engine_that_is_a_snap_is_left_alone(capsys, path, dockerd):
    dockerd.snap = True
    result = merge(capsys, path, config={"debug": True})
    assert "Docker as a snap" in result["msg"] and not path.exists() and dockerd.did == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"{,}", "line 1, column 2"), (b'{"debug": "\xff"}', "can't decode byte 0xff"), (b"[]", "object")],
)
def test_broken_json_is_left_for_a_person(capsys, path, dockerd, content, expected):
    path.parent.mkdir()
    path.write_bytes(content)
    result = merge(capsys, path, config={"debug": True})
    assert "that can be merged" in result["msg"] and expected in result["msg"]
    assert path.read_bytes() == content


# python_environment


class Pip:
    """A host where environments are made and filled without an index."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], dict[str, str]]] = []
        self.python: str | None = None
        self.distributions: dict[str, str] = {}
        self.broken = ""

    def look(self, request) -> dict[str, Any]:
        return {"path": request.environment, "python": self.python, "distributions": dict(self.distributions)}

    def run_command(self, module, argv, environ_update=None, **kwargs):
        self.calls.append((argv, environ_update or {}))
        if self.broken:
            return 1, "", self.broken
        if argv[1:3] == ["-m", "venv"]:
            self.python, self.distributions = "3.12.3", {"pip": "24.0"}
            return 0, "", ""
        pairs = dict(requirement.split("==") for requirement in argv[argv.index("--quiet") + 1 :])
        if "--no-index" in argv:
            return int(not pairs.items() <= self.distributions.items()), "", ""
        self.distributions |= pairs
        return 0, "", ""

    @property
    def installing(self) -> list[tuple[list[str], dict[str, str]]]:
        return [call for call in self.calls if "--no-index" not in call[0]]


@pytest.fixture
def pip(monkeypatch):
    host = Pip()
    monkeypatch.setattr(probes, "environment", host.look)
    monkeypatch.setattr(
        python_environment.AnsibleModule,
        "run_command",
        lambda self, argv, **k: host.run_command(self, argv, **k),
    )
    return host


def install(capsys, path, **arguments):
    return run(capsys, python_environment, path=str(path), **{"requirements": ["docker==7.2.0"], **arguments})


def test_an_environment_is_made_once(capsys, tmp_path, pip):
    first = install(capsys, tmp_path / "venv")
    assert (first["changed"], first["created"], first["installed"]) == (True, True, ["docker==7.2.0"])
    assert first["diff"] == {"before": "", "after": "docker 7.2.0\n"}
    assert len(pip.installing) == 2 and "--clear" not in pip.calls[0][0]
    second = install(capsys, tmp_path / "venv")
    assert (second["changed"], len(pip.installing)) == (False, 2)


def test_an_index_with_a_password_stays_out_of_argv_and_results(capsys, tmp_path, pip):
    url = "https://me:secret@index/simple"
    pip.broken = f"ERROR: cannot reach {url}"
    result = install(capsys, tmp_path / "venv", index_url=url)
    assert result["failed"] and "secret" not in json.dumps(result)
    pip.broken = ""
    install(capsys, tmp_path / "venv", index_url=url, trusted_hosts=["a", "b"])
    argv, environment = pip.installing[-1]
    assert url not in argv
    assert environment == {"PIP_INDEX_URL": url, "PIP_TRUSTED_HOST": "a b"}


def test_what_is_no_environment_is_never_cleared(capsys, tmp_path, pip):
    (tmp_path / "precious").write_text("x")
    result = install(capsys, tmp_path)
    assert result["failed"] and "something else" in result["msg"] and pip.calls == []


def test_an_environment_without_its_python_is_made_anew(capsys, tmp_path, pip):
    (tmp_path / "pyvenv.cfg").write_text("")
    assert install(capsys, tmp_path)["created"]
    assert pip.calls[0][0][1:4] == ["-m", "venv", "--clear"]


def test_environment_check_mode(capsys, tmp_path, pip):
    result = install(capsys, tmp_path / "venv", _ansible_check_mode=True)
    assert result["changed"] and pip.calls == []
    assert result["diff"]["after"] == "docker==7.2.0 (to be installed)\n"


@pytest.mark.parametrize(
    "requirement",
    ["-e x", "docker @ https://x/y.whl", "docker[ssh]", "docker; python_version>'3'", "./docker", "a b"],
)
def test_what_pip_would_take_for_something_else_is_refused_before_it_is_asked(
    capsys, tmp_path, pip, requirement
):
    pip.python, pip.distributions = "3.12.3", {"pip": "24.0"}
    result = install(capsys, tmp_path / "venv", requirements=[requirement])
    assert result["failed"] and "expected a name, and versions" in result["msg"] and pip.calls == []


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A real environment with pip, and a distribution in it that no index has to be asked for."""
    path = tmp_path_factory.mktemp("real") / "venv"
    venv.create(path, with_pip=True)
    (library,) = (path / "lib").glob("python*/site-packages")
    (library / "Some.Thing-7.3.0.dist-info").mkdir()
    (library / "Some.Thing-7.3.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: Some.Thing\nVersion: 7.3.0\n"
    )
    return path


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        ("some-thing", True),
        ("Some_Thing==7.3", True),
        ("some-thing>=7.10", False),
        ("some-thing >= 7.2, ==7.*", True),
        ("some-thing~=7.1", True),
        ("some-thing<7", False),
        ("other", False),
        ("pip", True),
    ],
)
def test_an_environment_s_own_pip_says_what_it_lacks(capsys, environment, requirement, met):
    result = install(capsys, environment, requirements=[requirement, "pip"], _ansible_check_mode=True)
    assert result["installed"] == ([] if met else [requirement]), result
    assert result["changed"] is not met


class Index:
    """A package index on the disk, and one line of hashes for what was published first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = (folder / "simple").as_uri() + "/"

    def publish(self, text: str, version: str = "1.0") -> str:
        """Put a wheel into it, in place of one with the same name; gives its line with hashes."""
        wheel = self.folder / f"simple/fleet-thing/fleet_thing-{version}-py3-none-any.whl"
        wheel.parent.mkdir(parents=True, exist_ok=True)
        info = f"fleet_thing-{version}.dist-info"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("fleet_thing.py", text)
            archive.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: fleet-thing\nVersion: {version}\n"
            )
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{info}/RECORD", "")
        links = "".join(
            f'<a href="{file.name}">{file.name}</a>\n' for file in sorted(wheel.parent.glob("*.whl"))
        )
        (wheel.parent / "index.html").write_text(f"<!DOCTYPE html>\n{links}")
        (line,) = pinned.of_wheels({wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest()})
        return line


@pytest.fixture
def index(tmp_path):
    return Index(tmp_path / "index")


def test_a_wheel_that_was_altered_on_its_way_is_not_installed(capsys, tmp_path, index, environment):
    path = tmp_path / "venv"
    shutil.copytree(environment, path, symlinks=True)
    given = {"requirements": ["fleet-thing==1.0"], "index_url": index.url, "index_only": True}
    given["hashes"] = [index.publish("good = True\n")]
    index.publish("bad = True\n")
    result = install(capsys, path, **given)
    assert result["failed"] and "DO NOT MATCH THE HASHES" in result["stderr"]
    assert not list(path.glob("lib/*/site-packages/fleet_thing.py"))
    index.publish("good = True\n")
    given["hashes"] = [index.publish("good = True\n")]
    assert install(capsys, path, **given)["changed"]
    (installed,) = path.glob("lib/*/site-packages/fleet_thing.py")
    assert installed.read_text() == "good = True\n"


def test_only_the_index_that_is_given_is_asked(capsys, tmp_path, index, environment, monkeypatch):
    path = tmp_path / "venv"
    shutil.copytree(environment, path, symlinks=True)
    index.publish("good = True\n")
    other = Index(tmp_path / "other")
    other.publish("newer = True\n", "2.0")
    configuration = tmp_path / "pip.conf"
    configuration.write_text(
        f"[global]\nextra-index-url = {other.url}\nfind-links = {other.url}fleet-thing/\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", other.url)
    monkeypatch.setenv("PIP_FIND_LINKS", f"{other.url}fleet-thing/")
    result = install(capsys, path, requirements=["fleet-thing"], index_url=index.url, index_only=True)
    assert result["diff"]["after"] == "fleet-thing 1.0\n"


@pytest.mark.parametrize(
    ("hashes", "words"),
    [
        (["other==1 --hash=sha256:" + "a" * 64], "seen none of docker==7.2.0; do: add them"),
        (["docker==7.2.0"], "hashes: 'docker==7.2.0': expected a version and hashes"),
    ],
)
def test_hashes_that_do_not_cover_what_is_wanted_are_refused(capsys, tmp_path, pip, hashes, words):
    assert words in install(capsys, tmp_path / "venv", hashes=hashes)["msg"]
    assert pip.installing == []


def test_no_other_index_needs_one(capsys, tmp_path, pip):
    assert "index_url" in install(capsys, tmp_path / "venv", index_only=True)["msg"]


def test_the_packages_of_the_role_are_installed_by_the_hashes_that_are_shipped(capsys, tmp_path, pip):
    pip.run_command = lambda module, argv, **_: pip.calls.append((argv, {})) or (1, "", "enough")
    for requirements, hashed in ((list(packages.REQUIREMENTS), True), (["docker==7.2.0"], False)):
        pip.calls.clear()
        pip.python, pip.distributions = "3.12.3", {"pip": "24.0"}
        install(capsys, tmp_path / "venv", requirements=requirements)
        assert ("--require-hashes" in pip.calls[-1][0]) is hashed
