"""What breaks a fingerprint, part by part, and what does not."""

from __future__ import annotations

import copy
import os
import shutil
from http.server import HTTPServer
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import unchanged
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import install
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.settings import Places
from helpers.server import Handler, served

IMAGE = "vllm/vllm-openai@sha256:" + "a" * 64
ENGINE = {
    "/info": {
        "ID": "one",
        "ServerVersion": "29.1.3",
        "Runtimes": {"nvidia": {}},
        "Containers": 3,
        "SystemTime": "now",
    },
    f"/images/{IMAGE.replace('/', '%2F').replace('@', '%40').replace(':', '%3A')}/json": {
        "Id": "sha256:1",
        "RepoDigests": [IMAGE],
    },
    "/containers/sparkfleet-vllm/json": {
        "Id": "c1",
        "Config": {"Cmd": ["--port", "8000"]},
        "HostConfig": {"RestartPolicy": {"Name": "on-failure"}},
        "State": {"Status": "running", "StartedAt": "2026-11-24T08:00:00Z", "Pid": 7, "Health": {"Log": [1]}},
        "Mounts": [{"Source": "/a"}, {"Source": "/b"}],
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
    },
}

TABLES = '{"nftables": [{"table": {"family": "inet", "name": "sparkfleet_unit"}}]}'


class Host:
    """A host in a directory, with an engine that is a table."""

    def __init__(self, root):
        self.root, self.engine = root, copy.deepcopy(ENGINE)
        for path in (
            "body/config.json",
            "body/parts/1.safetensors",
            "patches/gemma4_mtp.py",
            "state/state.json",
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(path)
        for path in (
            "venv/bin/python",
            "venv/lib/python3.12/site-packages/docker/__init__.py",
            "status",
            "daemon.json",
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(path)
        (root / "units").mkdir()
        (root / "port-guard").mkdir()
        (root / "port-guard/rules.v4").write_text("rules")
        (root / "raw").write_text("-A PREROUTING -j SPARKFLEET\n")
        (root / "unit-guard").mkdir()
        (root / "unit-guard/rules.nft").write_text("rules")
        (root / "port-range").write_text("32768\t60999\n")
        (root / "nft-tables").write_text(TABLES)
        (root / "nft-table").write_text(TABLES)
        (root / "units/sparkfleet-vllm.service").write_text("unit")
        (root / "boot_id").write_text("first")
        (root / "systemctl").write_text("ActiveState=active\nMainPID=7\n")
        (root / "cache").mkdir(mode=0o700)
        (root / "x.jinja").write_text("template")
        self.serving = {
            "container": {"name": "sparkfleet-vllm", "image": IMAGE},
            "models": {"body": {"path": str(root / "body")}},
            "files": [
                {"path": "/in/image.py", "host_path": str(root / "patches/gemma4_mtp.py")},
                {"path": "/carried.py"},
            ],
            "mounts": [{"path": str(root / "x.jinja"), "mount": "/config/x.jinja"}],
            "directories": [{"path": str(root / "cache"), "mode": "0700"}],
        }
        self.watch = {"environment": str(root / "venv"), "files": [str(root / "daemon.json")], "urls": []}

    def see(self):
        return unchanged.of_host(str(self.root / "state"), self.serving, self.watch, self.engine.__getitem__)


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(unchanged.unit, "UNITS", tmp_path / "units")
    monkeypatch.setattr(
        unchanged.unit, "run_command", lambda argv, timeout: (tmp_path / "systemctl").read_text()
    )
    monkeypatch.setattr(unchanged.port_guard, "DIRECTORY", tmp_path / "port-guard")
    monkeypatch.setattr(unchanged.iptables, "run_command", lambda *_: (tmp_path / "raw").read_text())
    monkeypatch.setattr(unchanged.unit_guard, "DIRECTORY", tmp_path / "unit-guard")
    monkeypatch.setattr(unchanged.nftables, "PORT_RANGE", tmp_path / "port-range")
    monkeypatch.setattr(
        unchanged.nftables, "run_command", lambda argv, *_: (tmp_path / f"nft-{argv[3]}").read_text()
    )
    monkeypatch.setattr(unchanged, "PACKAGES", (str(tmp_path / "status"),))
    monkeypatch.setattr(unchanged, "SYSTEM", (str(tmp_path / "boot_id"),))
    return Host(tmp_path)


def touch(path):
    """Another time and nothing else."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def swap(path):
    """The same bytes, size and time in another file."""
    status, copied = path.stat(), path.with_name("copied")
    copied.write_bytes(path.read_bytes())
    os.utime(copied, ns=(status.st_atime_ns, status.st_mtime_ns))
    copied.replace(path)


def container(host):
    return host.engine["/containers/sparkfleet-vllm/json"]


BREAKS = {
    "restarted host": ("kernel and driver", lambda host: (host.root / "boot_id").write_text("other")),
    "package installed": ("packages", lambda host: touch(host.root / "status")),
    "environment made anew": ("Python environment", lambda host: swap(host.root / "venv/bin/python")),
    "package in the environment": (
        "Python environment",
        lambda host: (host.root / "venv/lib/python3.12/site-packages/new").mkdir(),
    ),
    "engine updated": ("engine", lambda host: host.engine["/info"].update(ServerVersion="29.2")),
    "runtime gone": ("engine", lambda host: host.engine["/info"].update(Runtimes={})),
    "container made anew": ("container", lambda host: container(host).update(Id="c2")),
    "container updated": ("container", lambda host: container(host)["HostConfig"].update(Memory=1)),
    "other arguments": ("container", lambda host: container(host)["Config"].update(Cmd=[])),
    "other mount": ("container", lambda host: container(host)["Mounts"].pop()),
    "restarted by the engine": ("container", lambda host: container(host).update(RestartCount=1)),
    "other digest": (
        "image",
        lambda host: next(value for key, value in host.engine.items() if key.startswith("/images")).update(
            RepoDigests=[]
        ),
    ),
    "server restarted": ("container", lambda host: container(host)["State"].update(StartedAt="later")),
    "server stopped": ("container", lambda host: container(host)["State"].update(Status="exited")),
    "image tagged anew": (
        "image",
        lambda host: next(value for key, value in host.engine.items() if key.startswith("/images")).update(
            Id="sha256:2"
        ),
    ),
    "model file touched": ("models", lambda host: touch(host.root / "body/config.json")),
    "model file swapped": ("models", lambda host: swap(host.root / "body/parts/1.safetensors")),
    "model file gone": ("models", lambda host: (host.root / "body/parts/1.safetensors").unlink()),
    "model file too many": ("models", lambda host: (host.root / "body/extra").write_text("")),
    "model file open to all": ("models", lambda host: (host.root / "body/config.json").chmod(0o666)),
    "mount swapped": ("mounts", lambda host: swap(host.root / "x.jinja")),
    "cache opened": ("directories", lambda host: (host.root / "cache").chmod(0o755)),
    "patch mended": ("patches", lambda host: swap(host.root / "patches/gemma4_mtp.py")),
    "patch gone": ("patches", lambda host: (host.root / "patches/gemma4_mtp.py").unlink()),
    "unit stopped": (
        "unit",
        lambda host: (host.root / "systemctl").write_text("ActiveState=inactive\nMainPID=0\n"),
    ),
    "unit edited": (
        "unit",
        lambda host: (host.root / "units/sparkfleet-vllm.service").write_text("more"),
    ),
    "unit enabled": (
        "unit",
        lambda host: (
            (host.root / "units/multi-user.target.wants").mkdir(),
            (host.root / "units/multi-user.target.wants/sparkfleet-vllm.service").symlink_to("../x"),
        ),
    ),
    "table of a unit flushed": (
        "unit guard",
        lambda host: (host.root / "nft-tables").write_text('{"nftables": []}'),
    ),
    "rule of a unit gone": (
        "unit guard",
        lambda host: (host.root / "nft-table").write_text('{"nftables": []}'),
    ),
    "rules of a unit edited": ("unit guard", lambda host: touch(host.root / "unit-guard/rules.nft")),
    "range of ports": ("unit guard", lambda host: (host.root / "port-range").write_text("1024 65535")),
    "unit left": ("unit guard", lambda host: shutil.rmtree(host.root / "unit-guard")),
    "rules flushed": ("port guard", lambda host: (host.root / "raw").write_text("")),
    "rules edited on disk": ("port guard", lambda host: touch(host.root / "port-guard/rules.v4")),
    "rules no longer at boot": (
        "port guard",
        lambda host: (host.root / "units/sparkfleet-port-guard.service").write_text("new"),
    ),
    "rules removed": ("port guard", lambda host: shutil.rmtree(host.root / "port-guard")),
    "record": ("records", lambda host: (host.root / "state/state.json").write_text("other")),
    "ledger appears": ("records", lambda host: (host.root / "state/images.json").write_text("[]")),
    "daemon.json": ("files", lambda host: touch(host.root / "daemon.json")),
    "watched otherwise": (
        "what is watched",
        lambda host: host.watch["urls"].append("http://127.0.0.1:9/"),
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_whatever_changes_is_told_by_its_part(host, name):
    part, change = BREAKS[name]
    before = host.see()
    change(host)
    assert part in unchanged.differences(before, host.see())


@pytest.mark.parametrize("name", [name for name in BREAKS if name != "watched otherwise"])
def test_and_by_no_other(host, name):
    part, change = BREAKS[name]
    before = host.see()
    change(host)
    assert set(unchanged.differences(before, host.see())) == {part}


WATCHDOG = {
    "unit edited": lambda root: (root / "units/sparkfleet-watchdog.timer").write_text("[Timer] # often"),
    "started no more at boot": lambda root: (
        root / f"units/timers.target.wants/{install.units.TIMER}"
    ).unlink(),
    "agent appears": lambda root: (root / "units/sparkfleet-watchdog-agent.socket").write_text("[Socket]"),
    "settings": lambda root: touch(root / "state/watchdog/config.json"),
    "key": lambda root: touch(root / "state/watchdog/key"),
    "program edited": lambda root: touch(root / "programs/0a1b/deep/file.py"),
    "program gone": lambda root: shutil.rmtree(root / "programs"),
    "all of it": lambda root: [path.unlink() for path in (root / "units").glob("sparkfleet-watchdog*")],
}


@pytest.fixture
def watched(host, monkeypatch):
    monkeypatch.setattr(unchanged, "WATCHDOG_PROGRAMS", str(host.root / "programs"))
    for path in (
        f"units/{install.units.TIMER}",
        "state/watchdog/config.json",
        "state/watchdog/key",
        "programs/0a1b/deep/file.py",
    ):
        (host.root / path).parent.mkdir(parents=True, exist_ok=True)
        (host.root / path).write_text(path)
    (host.root / "units/timers.target.wants").mkdir()
    (host.root / f"units/timers.target.wants/{install.units.TIMER}").symlink_to(f"../{install.units.TIMER}")
    return host


@pytest.mark.parametrize("name", WATCHDOG)
def test_a_watchdog_that_changed_is_told_by_its_part(watched, name):
    before = watched.see()
    WATCHDOG[name](watched.root)
    assert unchanged.differences(before, watched.see()) == ["watchdog"]


def test_a_watchdog_that_stopped_is_another_one(watched, monkeypatch):
    before = watched.see()
    stopped = {"sparkfleet-watchdog.timer": unchanged.unit.Unit(active="inactive")}
    look = unchanged.unit.look
    monkeypatch.setattr(unchanged.unit, "look", lambda name: stopped.get(name) or look(name))
    assert unchanged.differences(before, watched.see()) == ["watchdog"]


def test_what_a_watchdog_writes_is_no_difference(watched):
    before = watched.see()
    for name in ("verdict.json", "memory.json", "evidence/1/log"):
        path = watched.root / "state/watchdog" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("more")
    assert unchanged.differences(before, watched.see()) == []


def test_the_watchdog_is_looked_for_where_its_module_puts_it():
    assert all(name.startswith(unchanged.WATCHDOG) for name in install.units.ALL)
    assert Path(unchanged.WATCHDOG_PROGRAMS) == install.PROGRAMS
    places = Places(Path("/s"))
    assert {f"/s/{path}" for path in unchanged.WATCHDOG_FILES} == {str(places.config), str(places.key)}


def test_what_is_no_difference_is_none(host):
    before = host.see()
    host.engine["/info"].update(Containers=4, SystemTime="later")
    container(host)["State"]["Health"] = {"Log": [2]}
    container(host)["Mounts"].reverse()
    (host.root / "body/config.json").read_text()
    (host.root / "cache/compiled").mkdir()
    assert unchanged.differences(before, host.see()) == []


def test_counters_and_rules_of_others_are_no_difference(host):
    before = host.see()
    (host.root / "raw").write_text(
        ":OUTPUT ACCEPT [9:9]\n-A PREROUTING -j SPARKFLEET\n-A OUTPUT -j CT --notrack\n"
    )
    assert unchanged.differences(before, host.see()) == []


def test_a_host_that_guards_no_port_runs_no_program_for_it(host, monkeypatch):
    shutil.rmtree(host.root / "port-guard")
    shutil.rmtree(host.root / "unit-guard")
    ran = []
    for program in (unchanged.iptables, unchanged.nftables):
        monkeypatch.setattr(program, "run_command", lambda *asked: ran.append(asked))
    before = host.see()
    assert (ran, unchanged.differences(before, host.see())) == ([], [])


def test_rules_that_cannot_be_read_are_what_they_say(host, monkeypatch):
    def fail(*_):
        raise unchanged.iptables.CommandAbsentError("gone")

    before = host.see()
    monkeypatch.setattr(unchanged.iptables, "run_command", fail)
    monkeypatch.setattr(unchanged.nftables, "run_command", fail)
    assert unchanged.differences(before, host.see()) == ["port guard", "unit guard"]


def test_a_server_that_no_longer_answers_is_another_answer(host):
    class Answers(Handler):
        def do_GET(self):
            self.answer(200)

    with served(HTTPServer(("127.0.0.1", 0), Answers)) as server:
        host.watch["urls"] = [f"http://127.0.0.1:{server.server_port}/v2/"]
        before = host.see()
        assert unchanged.answer(host.watch["urls"][0]) == 200
    assert unchanged.differences(before, host.see()) == ["answers"]


def test_a_link_is_what_it_leads_to(tmp_path):
    (tmp_path / "real").write_text("a")
    (tmp_path / "link").symlink_to("real")
    before = unchanged.facts(tmp_path / "link")
    touch(tmp_path / "real")
    assert unchanged.facts(tmp_path / "link") != before
    (tmp_path / "real").unlink()
    assert unchanged.facts(tmp_path / "link")


def test_a_container_that_is_gone_is_an_error(host):
    del host.engine["/containers/sparkfleet-vllm/json"]
    with pytest.raises(KeyError):
        host.see()


def test_another_image_store_is_seen_even_under_the_same_name(host):
    host.engine["/info"]["Driver"] = "btrfs"
    before = host.see()
    host.engine["/info"]["DriverStatus"] = [["driver-type", "io.containerd.snapshotter.v1"]]
    assert unchanged.differences(before, host.see()) == ["engine"]
    host.engine["/info"]["DriverStatus"].append(["Space Used", "2"])
    again = host.see()
    host.engine["/info"]["DriverStatus"][1][1] = "3"
    assert host.see() == again, "what changes by itself is none"
