# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recipe with every key that asks something of the engine (recipes/every-key.yml), on a real engine: what the server gets, that a
second run and drift find it equal, and that another limit or device is another container.

One story, after all that other tests look at: another server stays behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testing

HERE = Path(__file__).resolve().parents[1]
HOST, NAME = "serves", "sparkfleet-vllm"
ADDRESS = "172.31.250.61"
PATCHED = "/usr/local/lib/python3.12/dist-packages/vllm/model_executor/models/gemma4_mtp.py"
FOLDER = "/dev/infiniband"
DEVICE = f"{FOLDER}/uverbs0"
READ = {"/opt/config/x.jinja": "of the store\n", "/tools/tool.txt": "of the inventory\n"}
WRITTEN = ("/home/vllm/.cache/vllm", "/root/.cache/b12x", "/root/.triton", "/root/.tilelang")
PREPARE = f"""
mkdir -p {FOLDER} /srv/sparkfleet/templates /srv/tools
[ -e {DEVICE} ] || mknod -m 0666 {DEVICE} c 231 192
echo of the store >/srv/sparkfleet/templates/x.jinja
echo of the inventory >/srv/tools/tool.txt
"""
"""What a recipe needs of a host and no run brings. No driver has that device, as on a host without RDMA."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs a playbook, which must succeed. Gives what it printed."""
    given = {
        "spark_recipe": "every-key",
        "recipe_lock_dir": str(tmp_path_factory.mktemp("locks")),
        "spark_address": ADDRESS,
        "spark_interface": "eth0",
        "vllm_serve_allowed_paths": ["/srv/tools"],
    }
    stub = f"--extra-vars=@{testing.ROOT / 'molecule/lab/stub/vars.yml'}"

    def run(playbook: str, *options: str, **extra: Any) -> str:
        # What comes later wins.
        last = f"--extra-vars={json.dumps(given | extra)}"
        done = testing.play(testing.PLAYBOOKS / f"{playbook}.yml", HERE / "inventory", stub, last, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def container() -> dict[str, Any]:
    """As the engine describes it."""
    (seen,) = json.loads(testing.on(HOST, f"docker inspect {NAME}"))
    return dict(seen)


def serves() -> tuple[str, str, str]:
    """One life of one container, and what is on record."""
    seen = container()
    return seen["Id"], seen["State"]["StartedAt"], testing.on(HOST, "cat /var/lib/sparkfleet/state.json")


def limits(seen: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in seen["HostConfig"]["Ulimits"]}


def devices(seen: dict[str, Any]) -> list[dict[str, str]]:
    return list(seen["HostConfig"]["Devices"])


def as_it_is(device: str) -> dict[str, str]:
    return {"PathOnHost": device, "PathInContainer": device, "CgroupPermissions": "rw"}


@pytest.fixture(scope="module")
def deployed(run: Any) -> Iterator[dict[str, Any]]:
    """The server that the recipe makes. It has passed the gate."""
    testing.on(HOST, PREPARE)
    run("site")
    yield container()


def test_the_engine_has_what_the_recipe_asks_for(deployed: dict[str, Any]) -> None:
    assert deployed["Config"]["Entrypoint"] == ["env", "vllm", "serve"]
    assert devices(deployed) == [as_it_is(FOLDER)]
    assert limits(deployed) == {"memlock": (65536, 65536), "nofile": (4096, 4096)}
    read_only = ("/models/body", "/models/draft", PATCHED, "/opt/config/x.jinja", "/tools")
    assert {mount["Destination"]: mount["RW"] for mount in deployed["Mounts"]} == {
        **dict.fromkeys(read_only, False),
        **dict.fromkeys(WRITTEN, True),
    }
    # None of it came with more rights.
    assert deployed["HostConfig"]["CapDrop"] == ["ALL"] and not deployed["HostConfig"]["Privileged"]


@pytest.mark.usefixtures("deployed")
def test_the_process_has_it() -> None:
    asked = [DEVICE, *READ, *WRITTEN]
    inside = ["docker", "exec", "--interactive", NAME, "python3", "-", *asked]
    program = (HERE / "files/inside.py").read_text()
    seen = json.loads(
        testing.docker("exec", "--interactive", f"sparkfleet-lab-{HOST}", *inside, stdin=program)
    )
    given = {
        "OMP_NUM_THREADS": "4",
        "VLLM_HOST_IP": ADDRESS,
        "NCCL_SOCKET_IFNAME": "eth0",
        "SPARK_NAME": HOST,
    }
    assert {name: seen["environment"].get(name) for name in given} == given
    assert seen["limits"]["Max locked memory"] == ["65536", "65536"]
    assert seen["limits"]["Max open files"] == ["4096", "4096"]
    major, minor, refused = seen["device"]
    assert (major, minor) == (231, 192) and refused not in ("EPERM", "EACCES")
    assert seen["texts"] == READ
    assert seen["writable"] == {**dict.fromkeys(READ, False), **dict.fromkeys(WRITTEN, True)}


@pytest.mark.usefixtures("deployed")
def test_a_second_run_finds_it_equal(run: Any) -> None:
    before = serves()
    printed = run("site")
    assert re.search(r"changed=0 .*failed=0", printed), printed
    assert serves() == before


@pytest.mark.usefixtures("deployed")
def test_it_is_no_drift(run: Any, tmp_path: Path) -> None:
    printed = run("drift", drift_output=str(tmp_path))
    host = json.loads((tmp_path / "drift.json").read_text())["hosts"][HOST]
    assert host["verdict"] == "clean" and not host["findings"] and not host["unknown"], printed


OTHER_LIMITS = {"memlock": 32768, "nofile": 4096}


@pytest.mark.usefixtures("deployed")
def test_check_mode_shows_another_limit_and_device_and_touches_nothing(run: Any) -> None:
    before = serves()
    other = {"vllm_serve_ulimits": OTHER_LIMITS, "vllm_serve_devices": [DEVICE]}
    printed = run("site", "--check", "--diff", **other)
    shown = [line for line in printed.splitlines() if re.match(r"[-+](?![-+])", line)]
    assert sorted(shown) == [
        f"+device {DEVICE}:{DEVICE}:rw",
        "+ulimit memlock:32768:32768",
        f"-device {FOLDER}:{FOLDER}:rw",
        "-ulimit memlock:65536:65536",
    ], printed
    assert serves() == before


@pytest.mark.usefixtures("deployed")
@pytest.mark.long
def test_another_limit_and_another_device_are_another_container_each(run: Any) -> None:
    first = container()["Id"]
    run("site", vllm_serve_ulimits=OTHER_LIMITS)
    second = container()
    assert second["Id"] != first
    assert limits(second)["memlock"] == (32768, 32768) and devices(second) == [as_it_is(FOLDER)]
    run("site", vllm_serve_ulimits=OTHER_LIMITS, vllm_serve_devices=[DEVICE])
    third = container()
    assert third["Id"] != second["Id"]
    assert limits(third) == limits(second) and devices(third) == [as_it_is(DEVICE)]
