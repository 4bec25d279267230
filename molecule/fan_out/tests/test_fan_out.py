"""The fleet shares, while its hosts and the Hub misbehave. Each test begins with hosts that have nothing.

Every test runs `sync.yml` as a user would and injects its fault meanwhile, seen from outside the hosts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCENARIO = Path(__file__).parents[1]
HUB = SCENARIO.parents[1] / ".cache/lab/depot/hub"
LOCK = json.loads((HUB / "fan/lock.json").read_text())
SIZE = sum(file["size"] for model in LOCK.values() for file in model["files"].values())
HOSTS = ["fan-1", "fan-2", "fan-3"]
MODELS = "/srv/sparkfleet/models"
BODY = f"{MODELS}/fan--body/{LOCK['body']['commit']}"


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


def on(name: str, script: str, check: bool = True) -> str:
    """As root on a host, past ssh."""
    return docker("exec", f"sparkfleet-lab-{name}", "bash", "-c", script, check=check)


def slow(name: str, rate: str = "60mbit") -> None:
    on(name, f"tc qdisc replace dev eth0 root tbf rate {rate} burst 256kb latency 400ms")


def folder_of(model: dict) -> str:
    return f"{MODELS}/{model['repository'].replace('/', '--')}/{model['commit']}"


def have(name: str) -> None:
    """A host that has everything, brought by hand."""
    for model in LOCK.values():
        folder = folder_of(model)
        on(name, f"mkdir -p {folder}")
        docker("cp", f"{HUB / model['repository']}/.", f"sparkfleet-lab-{name}:{folder}")
        on(name, f"rm {folder}/.hub.json && chown -R root:root {MODELS}")
    assert whole(name)


def whole(name: str) -> bool:
    """Every file of the lock with its sha256, and no other."""
    for model in LOCK.values():
        folder = folder_of(model)
        lines = on(name, f"cd {folder} && find . -type f | xargs sha256sum", check=False).splitlines()
        seen = {path.removeprefix("./"): sha256 for sha256, path in (line.split() for line in lines)}
        if seen != {path: file["sha256"] for path, file in model["files"].items()}:
            return False
    return True


def promoted(name: str) -> str:
    return on(name, f"ls -d {MODELS}/*/[0-9]* 2>/dev/null", check=False)


class Hub:
    """What the depot's Hub was asked for of this scenario's repositories since the last `forget`."""

    def __init__(self) -> None:
        self.forget()

    def _lines(self) -> list[dict]:
        log = HUB / ".hub-requests.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def forget(self) -> None:
        self._before = len(self._lines())

    @property
    def requests(self) -> list[dict]:
        return [line for line in self._lines()[self._before :] if "/fan/" in line["path"]]

    @property
    def sent(self) -> int:
        return sum(
            line["bytes"]
            for line in self.requests
            if "/resolve/" in line["path"] and line["status"] in (200, 206)
        )

    @staticmethod
    def fails(*faults: dict) -> None:
        (HUB / ".hub-faults.json").write_text(json.dumps([{"match": "fan/", **fault} for fault in faults]))


class Sync:
    """One run of the playbook."""

    def __init__(self, rows: Path, limit: list[str] | None, forks: int, **options: object) -> None:
        self._rows = rows
        command = [str(Path(sys.executable).with_name("ansible-playbook")), str(SCENARIO / "sync.yml")]
        command += [f"--inventory={SCENARIO / 'inventory'}", f"--forks={forks}"]
        command += [f"--limit={','.join(limit)}"] if limit else []
        # ssh gives a host that is gone up at once: what waits is under test, not ssh.
        extra = {"rows": str(rows), "ansible_ssh_timeout": 5, "model_sync_idle": 8, **options}
        self._run = subprocess.Popen(
            [*command, "--extra-vars", json.dumps(extra)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def when(self, condition: Callable[[], bool], within: float = 600) -> None:
        deadline = time.monotonic() + within
        while not condition():
            assert self._run.poll() is None, f"over before it came to that: {self._run.communicate()[0]}"
            assert time.monotonic() < deadline, "it never came to that"
            time.sleep(0.05)

    def kill(self) -> None:
        os.killpg(self._run.pid, signal.SIGKILL)
        self._run.wait()

    def end(self) -> Sync:
        self.output = self._run.communicate(timeout=900)[0]
        self.failed = self._run.returncode != 0
        rows = json.loads(self._rows.read_text()) if self._rows.exists() else []
        self.rows = {row["host"]: row for row in rows}
        self.states = {host: row["state"] for host, row in self.rows.items()}
        return self


def received(name: str) -> int:
    """Bytes of payload that the peer of a host says it has, of the run that goes on."""
    try:
        status = json.loads(on(name, f"cat {MODELS}/.peer/status.json", check=False))
    except ValueError:
        return 0
    return sum(status["from"].values()) if status["state"] == "working" else 0


def midway(name: str) -> Callable[[], bool]:
    return lambda: SIZE * 0.15 < received(name) < SIZE * 0.9


@pytest.fixture
def sync(tmp_path: Path) -> Iterator[Callable[..., Sync]]:
    runs: list[Sync] = []

    def start(limit: list[str] | None = None, forks: int = 8, **options: object) -> Sync:
        runs.append(Sync(tmp_path / f"rows-{len(runs)}.json", limit, forks, **options))
        return runs[-1]

    yield start
    for run in runs:
        if run._run.poll() is None:
            run.kill()


@pytest.fixture
def hub() -> Iterator[Hub]:
    yield Hub()
    (HUB / ".hub-faults.json").unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def nothing_there() -> None:
    for name in HOSTS:
        docker("start", f"sparkfleet-lab-{name}")
        on(name, "tc qdisc del dev eth0 root 2>/dev/null; umount /srv/sparkfleet 2>/dev/null; true")
        on(
            name,
            f"kill -9 $(cat {MODELS}/.peer/lock) 2>/dev/null; pkill -9 -f '[A]nsiballZ'; rm -rf {MODELS}; true",
        )
        on(name, "until (: </dev/tcp/127.0.0.1/22) 2>/dev/null; do sleep 0.1; done")


def test_once_from_outside_whoever_joins_whoever_has_it(sync, hub):
    """Also where fewer hosts are asked at a time than share."""
    run = sync(["fan-1", "fan-2"], forks=1).end()
    assert run.states == {"fan-1": "fetched", "fan-2": "received"}, run.output
    assert hub.sent == SIZE and all(map(whole, HOSTS[:2]))

    hub.forget()
    again = sync(["fan-1", "fan-2"]).end()
    assert (
        hub.requests == [] and again.rows == {} and "changed=1 " not in again.output.split("RECAP")[1][200:]
    )

    joined = sync().end()
    assert joined.states == {**dict.fromkeys(HOSTS[:2], "present"), "fan-3": "received"}, joined.output
    assert hub.requests == [] and whole("fan-3")
    assert sum(joined.rows["fan-3"]["from"].values()) >= SIZE


def test_a_host_that_gives_wrong_bytes_is_found_and_mended_from_the_others(sync, hub):
    sync(["fan-1", "fan-2"]).end()
    docker("cp", str(SCENARIO / "files/rot.py"), "sparkfleet-lab-fan-1:/root/rot.py")
    on("fan-1", f"python3 /root/rot.py {BODY} model-1.safetensors")
    assert not whole("fan-1")
    hub.forget()
    run = sync().end()
    assert not run.failed and all(map(whole, HOSTS)), run.output
    assert run.states["fan-1"] == "repaired" and hub.requests == []
    assert any("wrong bytes" in remark or "hashed again" in remark for remark in run.rows["fan-1"]["remarks"])


def test_the_seed_dies_midway(sync, hub):
    have("fan-1")
    slow("fan-1", "30mbit")
    hub.forget()
    run = sync()
    run.when(midway("fan-2"))
    docker("kill", "sparkfleet-lab-fan-1")
    run.end()
    assert run.failed and all(map(whole, HOSTS[1:])), run.output
    assert run.states["fan-1"] == "did not answer"
    # What the dead host had not given came from the Hub, to one of them.
    assert 0 < hub.sent <= SIZE
    assert sum(run.rows[name]["hub_bytes"] for name in HOSTS[1:]) == hub.sent


@pytest.mark.long
def test_a_receiver_that_dies_and_one_whose_peer_is_killed_fetch_only_the_rest(sync, hub):
    have("fan-1")
    slow("fan-1", "20mbit")
    run = sync()
    run.when(midway("fan-2"))
    on("fan-2", f"kill -9 $(cat {MODELS}/.peer/lock)")
    run.when(midway("fan-3"))
    docker("kill", "sparkfleet-lab-fan-3")
    run.end()
    assert run.failed and run.states["fan-3"] == "did not answer", run.output
    assert whole("fan-1") and whole("fan-2")
    assert any("has ended" in remark for remark in run.rows["fan-2"]["remarks"])

    docker("start", "sparkfleet-lab-fan-3")
    time.sleep(3)
    assert promoted("fan-3") == "" or not whole("fan-3")
    back = sync().end()
    assert not back.failed and whole("fan-3"), back.output
    assert 0 < sum(back.rows["fan-3"]["from"].values()) < SIZE * 0.95
    assert hub.requests == []


def test_a_controller_that_dies_leaves_what_the_next_one_goes_on_with(sync, hub):
    have("fan-1")
    slow("fan-1", "40mbit")
    run = sync(["fan-1", "fan-2"])
    run.when(midway("fan-2"))
    run.kill()
    on("fan-1", "tc qdisc del dev eth0 root")
    hub.forget()
    again = sync(["fan-1", "fan-2"]).end()
    assert not again.failed and whole("fan-2") and hub.requests == [], again.output
    # A peer that nobody ends does so itself.
    on("fan-2", f"timeout 30 sh -c 'while kill -0 $(cat {MODELS}/.peer/lock); do sleep 0.5; done'")


def test_a_full_disk_stops_one_host(sync, hub):
    on("fan-3", "mount -t tmpfs -o size=30m none /srv/sparkfleet")
    run = sync(model_sync_disk_reserve=0).end()
    assert run.failed and all(map(whole, HOSTS[:2])), run.output
    assert run.states["fan-3"].startswith("FAILED") and "free" in run.rows["fan-3"]["problem"]
    # The body has no room. The draft has, and is there.
    assert hub.sent == SIZE and "fan--body" not in promoted("fan-3")


@pytest.mark.long
def test_a_hub_that_is_down_fails_all_and_one_that_stumbles_none(sync, hub):
    hub.fails({"kind": "status", "status": 503})
    down = sync(model_sync_retries=0).end()
    assert down.failed and not any(map(promoted, HOSTS)), down.output
    assert all(row["state"].startswith("FAILED") for row in down.rows.values()) and len(down.rows) == 3
    assert all("HTTP 503" in row["problem"] for row in down.rows.values())

    hub.fails(
        {"match": "fan/body/resolve.*model-1", "kind": "truncate", "times": 1},
        {"match": "fan/body/resolve.*model-2", "kind": "slow", "bytes_per_second": 8_000_000, "times": 1},
        {"match": "fan/draft", "kind": "status", "status": 429, "retry_after": 1, "times": 1},
        {"match": "fan/draft", "kind": "status", "status": 500, "times": 1},
    )
    hub.forget()
    up = sync().end()
    assert not up.failed and all(map(whole, HOSTS)), up.output
    # What was cut short went on after the bytes that had come.
    assert hub.sent == SIZE
