from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.action.spark_info import ActionModule
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import (
    daemon_json,
    engine_socket,
    gpu,
    probes,
    toolkit,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import engine as docker
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.ports import ports
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import (
    CommandAbsentError,
    ProbeError,
    Request,
    run_command,
)
from ansible_collections.sparkfleet.vllm.plugins.modules import spark_info
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.host.judge import judge
from helpers.server import Handler, UnixServer, served

DEFAULTS: dict[str, Any] = {name: option["default"] for name, option in spark_info.WANTED.items()}
BOOT = 1_700_000_000
CONTAINER_ID = "ab" * 32


def put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def nvidia_smi(argv, timeout):
    answers = {"name": "NVIDIA GB10", "driver_version": "580.95.05"}
    return answers[argv[1].split("=")[1]] + "\n"


def no_command(argv, timeout):
    raise CommandAbsentError(f"{argv[0]} is not there")


def listening(*rows: tuple[str, str]) -> str:
    head = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    )
    return head + "".join(
        f"   {i}: {address} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 x 100 0 0 10 0\n"
        for i, (address, inode) in enumerate(rows)
    )


@pytest.fixture
def root(tmp_path) -> Path:
    """What the files of a bare Spark say."""
    put(
        tmp_path,
        {
            "/etc/os-release": 'ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04.3 LTS"\n# c\n',
            "/proc/meminfo": "MemTotal:       125000000 kB\nMemFree: 1 kB\nMemAvailable:   100000000 kB\nSwapTotal: 0 kB\n",
            "/proc/stat": f"cpu 1\nbtime {BOOT}\n",
            "/proc/net/tcp": listening(),
            "/sys/bus/pci/devices/000f:01:00.0/vendor": "0x10de\n",
            "/sys/bus/pci/devices/000f:01:00.0/device": "0x2e12\n",
            "/sys/bus/pci/devices/0000:00:00.0/vendor": "0x10de\n",
            "/sys/bus/pci/devices/0000:00:00.0/device": "0x22ce\n",
            "/sys/class/dmi/id/product_name": "Ascent\n",
            "/var/lib/dpkg/status": "Package: bash\nStatus: install ok installed\nVersion: 5\n\n",
        },
    )
    (tmp_path / "srv").mkdir()
    return tmp_path


def request(root, **kwargs):
    return Request(root=root, **{"run": nvidia_smi, "timeout": 5.0, **kwargs})


def run_dockerd(root: Path, pid: int = 700, started: float = 100.0, path: str = "/usr/bin") -> None:
    ticks = int(started * os.sysconf("SC_CLK_TCK"))
    put(
        root,
        {
            "/run/docker.pid": f"{pid}\n",
            f"/proc/{pid}/comm": "dockerd\n",
            f"/proc/{pid}/stat": f"{pid} (docker d) S " + " ".join(["0"] * 18) + f" {ticks} 0 0\n",
            f"/proc/{pid}/cmdline": "/usr/bin/dockerd\0-H\0fd://\0",
            f"/proc/{pid}/environ": f"HOME=/\0PATH={path}\0",
        },
    )


@pytest.fixture
def engine(root):
    """A Docker engine on a socket of its own: what it answers can be changed."""
    answers = {
        "/version": {"Version": "29.1.3", "ApiVersion": "1.52"},
        "/info": {
            "DockerRootDir": "/data/docker",
            "Driver": "overlayfs",
            "CgroupVersion": "2",
            "LiveRestoreEnabled": True,
            "Runtimes": {"runc": {}, "nvidia": {}},
            "RegistryConfig": {
                "Mirrors": ["http://m:5000/"],
                "InsecureRegistryCIDRs": ["127.0.0.0/8"],
                "IndexConfigs": {"docker.io": {"Secure": True}, "10.0.0.1:5000": {"Secure": False}},
            },
            "DiscoveredDevices": [
                {"Source": "cdi", "ID": "nvidia.com/gpu=0"},
                {"Source": "other", "ID": "x"},
            ],
        },
        "/images/json?shared-size=1": [{"Id": "a", "Size": 5, "SharedSize": -1}, {"Id": "b", "Size": 7}],
        "/containers/json": [
            {
                "Id": CONTAINER_ID,
                "Names": ["/sparkfleet-vllm"],
                "Image": "vllm@sha256:1",
                "Labels": {"a": "b"},
                "Ports": [
                    {"IP": "127.0.0.1", "PrivatePort": 8000, "PublicPort": 8000, "Type": "tcp"},
                    {"PrivatePort": 9, "Type": "tcp"},
                ],
            }
        ],
    }

    class Engine(Handler):
        def do_GET(self):
            answer = answers.get(self.path, 500)
            if answer == "hang":
                time.sleep(3)
                return
            body = (
                b'{"message":"broken"}'
                if answer == 500
                else answer
                if isinstance(answer, bytes)
                else json.dumps(answer).encode()
            )
            self.answer(500 if answer == 500 else 200, body)

    path = root / "var/run/docker.sock"
    path.parent.mkdir(parents=True, exist_ok=True)
    run_dockerd(root)
    with served(UnixServer(str(path), Engine)):
        yield answers


def install_hook(root: Path, directory: str = "/usr/bin") -> None:
    put(root, {f"{directory}/{toolkit.HOOK}": "#!/bin/sh\n"})
    (root / directory.lstrip("/") / toolkit.HOOK).chmod(0o755)


# Each probe


def test_gb10_by_any_of_three_witnesses(root):
    assert gpu.gb10(request(root, run=no_command)) == {
        "present": True, "pci": ["000f:01:00.0"], "name": None, "product": "Ascent",
    }  # fmt: skip
    (root / "sys/bus/pci/devices/000f:01:00.0/device").write_text("0x2e13\n")
    assert not gpu.gb10(request(root, run=no_command))["present"]
    assert gpu.gb10(request(root))["present"], "nvidia-smi names it"
    assert not gpu.gb10(request(root, run=lambda a, t: "NVIDIA GB100\n"))["present"], "another chip"
    (root / "sys/class/dmi/id/product_name").write_text("NVIDIA_DGX_Spark\n")
    assert gpu.gb10(request(root, run=no_command))["present"]


def test_driver_from_the_kernel_before_nvidia_smi(root):
    assert gpu.driver(request(root)) == "580.95.05"
    put(root, {"/sys/module/nvidia/version": "590.1\n"})
    assert gpu.driver(request(root, run=no_command)) == "590.1"


def test_memory_in_bytes(root):
    assert probes.memory(request(root)) == {
        "total_bytes": 125_000_000 * 1024, "available_bytes": 100_000_000 * 1024, "swap_bytes": 0,
    }  # fmt: skip


def test_disks_at_the_nearest_existing_parent(root):
    models = root / "srv/sparkfleet/models/org--name/c"
    models.mkdir(parents=True)
    (models / "weights").write_bytes(b"x" * 100_000)
    found = probes.disks(request(root), "/data/docker/deep", 12)
    assert found["store"]["nearest"] == "/srv/sparkfleet"
    assert 100_000 <= found["store"]["held_bytes"] < 120_000
    assert (found["docker"]["nearest"], found["docker"]["held_bytes"]) == ("/", 12)
    assert found["docker"]["free_bytes"] == os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
    assert found["docker"]["device"] == root.stat().st_dev


def test_a_store_that_others_may_alter_is_told(root):
    (root / "srv/sparkfleet").mkdir()
    asked = request(root, directories=("/srv/sparkfleet", "/srv/not-there"))
    assert probes.alterable(asked) == {}
    (root / "srv/sparkfleet").chmod(0o777)
    assert probes.alterable(asked) == {"/srv/sparkfleet": "writable by everybody (mode 0777)"}


def test_the_directory_that_containers_write_to(root):
    asked = request(root, directories=("/srv/sparkfleet",))
    assert probes.cache(asked) == {"path": "/srv/sparkfleet/cache", "mode": None}
    folder = root / "srv/sparkfleet/cache"
    folder.mkdir(parents=True)
    for mode in (0o755, 0o700):
        folder.chmod(mode)
        assert probes.cache(asked)["mode"] == f"{mode:04o}"
    folder.chmod(0o777)
    assert list(probes.alterable(asked)) == ["/srv/sparkfleet/cache"]


@pytest.mark.parametrize(
    ("text", "content", "error"),
    [
        (None, {}, None),
        ('{"a": 1}', {"a": 1}, None),
        ('\ufeff{"a": 1}', {"a": 1}, None),
        ('{"a" 1}', None, "line 1, column 6"),
    ],
)
def test_daemon_config(root, text, content, error):
    if text is not None:
        put(root, {"/etc/docker/daemon.json": text})
    found = probes.daemon_config(request(root))
    assert (found["exists"], found["content"]) == (text is not None, content)
    assert (found["error"] or "").startswith(error or "") and bool(found["error"]) == bool(error)


def test_engine_is_not_asked_while_dockerd_does_not_run(root, engine):
    (root / "run/docker.pid").unlink()
    (root / "proc/700/comm").write_text("other\n")
    found = docker.look(request(root))
    assert (found["running"], found["installed"], found["version"]) == (False, False, None)


def test_a_stale_pid_file_is_no_engine(root):
    run_dockerd(root)
    (root / "proc/700/comm").write_text("nginx\n")
    assert not docker.look(request(root))["running"]


def test_engine(root, engine):
    found = docker.look(request(root))
    assert found["running"] and found["installed"]
    assert found["started"] == pytest.approx(BOOT + 100)
    expected = {
        "pid": 700, "version": "29.1.3", "api_version": "1.52", "data_root": "/data/docker", "live_restore": True,
        "runtimes": ["nvidia", "runc"], "registry_mirrors": ["http://m:5000/"],
        "insecure_registries": ["10.0.0.1:5000", "127.0.0.0/8"], "cdi_devices": ["nvidia.com/gpu=0"],
        "flags": ["hosts"], "containerd_snapshotter": False,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert found["containers"] == [
        {
            "id": CONTAINER_ID, "name": "sparkfleet-vllm", "image": "vllm@sha256:1", "labels": {"a": "b"},
            "ports": [{"port": 8000, "address": "127.0.0.1", "container_port": 8000, "protocol": "tcp"}],
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "config", "expected"),
    [
        ("/run/containerd/containerd.sock", "", "/var/lib/containerd"),
        ("", 'version = 2\n  root = "/data/containerd"\n[plugins]\n', "/data/containerd"),
        ("", '[plugins]\nroot = "/of/a/plugin"\n', "/var/lib/containerd"),
        ("", 'version = 2\n[plugins]\nroot = "/of/a/plugin"\n', "/var/lib/containerd"),
        ("/var/run/docker/containerd/containerd.sock", 'root = "/of/another"\n', "/data/docker/containerd"),
        ("/run/docker/containerd/containerd.sock", "", "/data/docker/containerd"),
    ],
)
def test_images_in_containerd_are_not_below_dockers_data_root(root, engine, address, config, expected):
    assert probes.gather(request(root))["disks"]["docker"]["path"] == "/data/docker"
    put(root, {docker.CONTAINERD_CONFIG: config})
    engine["/info"] |= {
        "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
        "Containerd": {"Address": address},
    }
    info = probes.gather(request(root))
    assert info["docker"]["containerd_snapshotter"] and info["docker"]["images_root"] == expected
    assert info["disks"]["docker"]["path"] == expected


@pytest.mark.parametrize(
    ("images", "held"),
    [
        ([], 0),
        ([(20, 0), (9, 0)], 29),
        # Two generations of one image: what they share is there once.
        ([(20, 15), (18, 15)], 23),
        # Before API 1.42 nobody knows.
        ([(20, -1), (18, -1)], 38),
    ],
)
def test_what_images_share_is_held_once(images, held):
    listed = [{"Size": size, "SharedSize": shared} for size, shared in images]
    assert docker.held(listed) == held


@pytest.mark.parametrize(
    ("answer", "said"), [(500, "/info: 500"), (b"<html>", "no JSON"), ("hang", "timed out")]
)
def test_an_engine_that_answers_badly_says_why(root, engine, answer, said):
    engine["/info"] = answer
    info = probes.gather(request(root, timeout=2.0))
    assert info["docker"]["running"] and info["docker"]["data_root"] is None
    # Each question is asked by itself.
    assert info["docker"]["version"] == "29.1.3" and len(info["docker"]["containers"]) == 1
    assert said in info["unknown"]["docker_api"]
    assert "silent" not in info["docker"]


def test_an_engine_that_takes_its_time_to_list_its_images_is_known_all_the_same(root, engine):
    assert probes.gather(request(root))["docker"]["images_bytes"] == 12
    engine["/images/json?shared-size=1"] = "hang"
    info = probes.gather(request(root, timeout=1.0))
    assert set(info["unknown"]) == {"docker_images"} and "timed out" in info["unknown"]["docker_images"]
    assert info["docker"]["version"] and info["docker"]["images_bytes"] is None
    assert info["disks"]["docker"]["held_bytes"] == 0


@pytest.mark.parametrize(
    "files",
    [
        {"/run/snap.docker/docker.pid": "800\n", "/proc/800/comm": "dockerd\n"},
        {"/proc/800/comm": "dockerd\n"},
        {"/snap/bin/docker": ""},
    ],
)
def test_docker_as_a_snap_is_known_by_its_name(root, files):
    put(root, {"/proc/800/cgroup": "0::/system.slice/snap.docker.dockerd.service\n", **files})
    found = docker.look(request(root))
    assert (found["installed"], found["snap"]) == (True, True)
    put(root, {"/usr/bin/dockerd": ""})
    (root / "usr/bin/dockerd").chmod(0o755)
    assert docker.look(request(root))["snap"] is False, "the system has one"


def test_a_dockerd_of_another_host_in_a_container_is_no_snap(root):
    put(root, {"/proc/800/comm": "dockerd\n", "/proc/800/cgroup": "0::/system.slice/docker-ab.scope\n"})
    found = docker.look(request(root))
    assert (found["installed"], found["snap"]) == (False, False)


def test_no_socket_says_so(tmp_path):
    with pytest.raises(engine_socket.EngineError, match="No such file"):
        engine_socket.get(str(tmp_path / "none"), "/info")


def test_toolkit_is_usable_only_if_the_engine_started_after_it(root, engine):
    engine["/info"]["DiscoveredDevices"] = []
    install_hook(root)
    put(
        root,
        {
            "/var/lib/dpkg/status": "Package: nvidia-container-toolkit\nStatus: install ok installed\nVersion: 1.19.0-1\n\n"
        },
    )
    installed = (root / "usr/bin" / toolkit.HOOK).stat().st_ctime

    run_dockerd(root, started=installed - BOOT + 60)
    found = toolkit.look(request(root), docker.look(request(root)))
    assert (found["version"], found["hook"]) == ("1.19.0-1", f"/usr/bin/{toolkit.HOOK}")
    assert (found["usable"], found["unseen"]) == (True, False)

    run_dockerd(root, started=installed - BOOT - 60)
    found = toolkit.look(request(root), docker.look(request(root)))
    assert (found["usable"], found["unseen"]) == (False, True)


def look_at_toolkit(root: Path) -> dict[str, Any]:
    return toolkit.look(request(root), docker.look(request(root)))


@pytest.mark.parametrize(
    ("version", "hooks", "late", "expected"),
    [
        # Before 29.2, CDI devices are for --device alone.
        ("28.3.3", [toolkit.HOOK], True, (False, True)),
        ("28.3.3", [toolkit.CDI_HOOK], False, (False, False)),
        ("29.1.3", [toolkit.HOOK], False, (True, False)),
        ("29.1.3", [], False, (False, False)),
        ("29.2.0", [toolkit.CDI_HOOK], False, (True, False)),
        ("29.2.0", [toolkit.CDI_HOOK], True, (False, True)),
        ("30.0.1", [], False, (False, False)),
        ("dev", [toolkit.CDI_HOOK], False, (False, False)),
    ],
)
def test_cdi_gives_a_gpu_from_the_engine_on_that_asks_for_it(root, engine, version, hooks, late, expected):
    engine["/version"]["Version"] = version
    for name in hooks:
        put(root, {f"/usr/bin/{name}": "#!/bin/sh\n"})
        (root / "usr/bin" / name).chmod(0o755)
    run_dockerd(root, started=time.time() - BOOT + (-600 if late else 600))
    found = look_at_toolkit(root)
    assert found["cdi"] and (found["usable"], found["unseen"]) == expected


def config_toml(mode: str, skip: bool = False) -> str:
    hook = f"[nvidia-container-runtime-hook]\nskip-mode-detection = {str(skip).lower()}\n"
    # Modes of other sections are not the runtime's.
    other = '[nvidia-container-runtime.modes.cdi]\nmode = "none of ours"\n'
    return f'# of a person\n[nvidia-container-runtime]\n#mode = "csv"\n  mode = "{mode}"  # asked for\n\n{other}{hook}'


@pytest.mark.parametrize(
    ("text", "mode", "usable"),
    [
        ("", "auto", True),
        (config_toml("auto"), "auto", True),
        (config_toml("legacy"), "legacy", True),
        (config_toml("cdi"), "cdi", False),
        (config_toml("csv"), "csv", False),
        (config_toml("cdi", skip=True), "legacy", True),
    ],
)
def test_the_hook_serves_in_its_own_mode_only(root, engine, text, mode, usable):
    install_hook(root)
    put(root, {toolkit.CONFIG: text})
    run_dockerd(root, started=time.time() - BOOT + 600)
    found = look_at_toolkit(root)
    assert (found["mode"], found["usable"], found["unseen"]) == (mode, usable, False)
    engine["/info"]["DefaultRuntime"] = "nvidia"
    assert look_at_toolkit(root)["usable"], "the runtime serves in every mode"


def test_mode_cdi_is_served_by_a_newer_engine(root, engine):
    install_hook(root)
    put(root, {toolkit.CONFIG: config_toml("cdi"), f"/usr/bin/{toolkit.CDI_HOOK}": "#!/bin/sh\n"})
    (root / "usr/bin" / toolkit.CDI_HOOK).chmod(0o755)
    engine["/version"]["Version"] = "29.2.1"
    run_dockerd(root, started=time.time() - BOOT + 600)
    assert look_at_toolkit(root)["usable"]


MISMATCH = "nvidia-smi exited 18: Failed to initialize NVML: Driver/library version mismatch; NVML library version: 580.126"


def failing(said: str):
    def run(argv, timeout):
        raise ProbeError(said)

    return run


def libraries(root: Path, version: str) -> None:
    put(root, {f"/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.{version}": ""})
    (root / "usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1").symlink_to(f"libnvidia-ml.so.{version}")


def test_an_nvidia_smi_that_fails_says_that_no_new_container_gets_the_gpu(root):
    put(root, {gpu.MODULE: "580.95.05\n"})
    libraries(root, "580.126.09")
    found = probes.gather(request(root, run=failing(MISMATCH)))["gpu"]
    assert found == {"loaded": "580.95.05", "libraries": ["580.126.09"], "error": MISMATCH}
    assert gpu.access(request(root))["error"] is None, "it answers"
    assert (
        "580.95.05 is loaded, the libraries are 580.126.09"
        in gpu.access(absent := request(root, run=no_command))["error"]
    )
    put(root, {gpu.MODULE: "580.126.09\n"})
    assert gpu.access(absent)["error"] is None


def test_all_that_nvidia_smi_says_of_its_failure_is_kept():
    with pytest.raises(ProbeError, match="exited 18: Driver mismatch; NVML library version: 1$"):
        run_command(["sh", "-c", "echo 'Driver mismatch'; echo 'NVML library version: 1'; exit 18"], 5)


@pytest.mark.parametrize(
    ("log", "rotated", "unseen"),
    [
        ("install nvidia-container-toolkit:arm64 <none> 1.19", "", True),
        ("upgrade nvidia-container-toolkit:arm64 1.18 1.19", "", False),
        ("upgrade nvidia-container-toolkit-base:arm64 1.18 1.19", "", True),
        ("upgrade bash:arm64 1 2", "upgrade nvidia-container-toolkit:arm64 1.18 1.19", False),
        (
            "install nvidia-container-toolkit:arm64 <none> 1.19",
            "upgrade nvidia-container-toolkit:arm64 1.18 1.19",
            True,
        ),
    ],
)
def test_an_upgraded_toolkit_is_no_reason_to_stop_what_serves(root, engine, log, rotated, unseen):
    engine["/info"]["DiscoveredDevices"] = []
    install_hook(root)
    put(
        root,
        {
            "/var/log/dpkg.log": f"2026-11-23 21:00:00 {log}\n",
            "/var/log/dpkg.log.1": f"2026-10-01 21:00:00 {rotated}\n",
        },
    )
    run_dockerd(root, started=(root / "usr/bin" / toolkit.HOOK).stat().st_ctime - BOOT - 60)
    found = toolkit.look(request(root), docker.look(request(root)))
    assert (found["unseen"], found["usable"]) == (unseen, not unseen)


@pytest.mark.parametrize(
    ("done", "broken", "unseen"),
    [
        ("upgrade", {}, False),
        ("install", {}, True),
        ("upgrade", {"dpkg.log.2.gz": b"no gzip"}, False),
        ("upgrade", {"dpkg.log.2.gz": gzip.compress(b"cut")[:-9]}, False),
        ("upgrade", {"dpkg.log.2.gz": gzip.compress(b"x")[:10] + b"\xff" * 30}, False),
    ],
)
def test_the_log_of_an_upgrade_may_be_rotated_away(root, engine, done, broken, unseen):
    install_hook(root)
    put(root, {"/var/log/dpkg.log": ""})
    line = f"2026-08-20 06:12:01 {done} nvidia-container-toolkit:arm64 1.18 1.19\n".encode()
    # 10 comes after 3, whatever their letters say; the newest entry counts.
    logs = {
        "dpkg.log.3.gz": gzip.compress(line),
        "dpkg.log.10.gz": gzip.compress(line.replace(done.encode(), b"install")),
    }
    for name, content in {**logs, **broken, "dpkg.log.old": line}.items():
        (root / "var/log" / name).write_bytes(content)
    run_dockerd(root, started=time.time() - BOOT - 600)
    assert look_at_toolkit(root)["unseen"] is unseen


def test_the_hook_must_be_on_the_path_of_dockerd(root, engine):
    engine["/info"]["DiscoveredDevices"] = []
    install_hook(root, "/usr/local/bin")
    assert toolkit.look(request(root), docker.look(request(root)))["hook"] is None


def test_a_removed_package_is_not_installed(root):
    put(
        root,
        {
            "/var/lib/dpkg/status": "Package: nvidia-container-toolkit\nStatus: deinstall ok config-files\nVersion: 1\n"
        },
    )
    assert toolkit.look(request(root), {})["installed"] is False


def test_ports_with_their_owners(root):
    put(
        root,
        {
            # 127.0.0.1:22, 0.0.0.0:8000, and the rest in IPv6
            "/proc/net/tcp": listening(("0100007F:0016", "11"), ("00000000:1F40", "12"))
            + "   9: 0100007F:9000 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 14 1 x 20 4 30 10 -1\n",
            "/proc/net/tcp6": listening(("00000000000000000000000001000000:0050", "13")),
            "/proc/31/comm": "sshd\n",
            "/proc/32/comm": "vllm\n",
            "/proc/32/cgroup": f"0::/system.slice/docker-{CONTAINER_ID}.scope\n",
        },
    )
    for pid, inode in ((31, 11), (32, 12)):
        (root / f"proc/{pid}/fd").mkdir()
        (root / f"proc/{pid}/fd/3").symlink_to(f"socket:[{inode}]")
    containers: list[dict[str, Any]] = [
        {"id": CONTAINER_ID, "name": "sparkfleet-vllm", "ports": []},
        {
            "id": "c",
            "name": "web",
            "ports": [{"port": 81, "address": "0.0.0.0", "container_port": 80, "protocol": "tcp"}],
        },
    ]
    assert ports(request(root), containers) == [
        {"port": 22, "address": "127.0.0.1", "pid": 31, "process": "sshd", "container": None},
        {"port": 80, "address": "::1", "pid": None, "process": None, "container": None},
        {"port": 81, "address": "0.0.0.0", "pid": None, "process": None, "container": "web"},
        {"port": 8000, "address": "0.0.0.0", "pid": 32, "process": "vllm", "container": "sparkfleet-vllm"},
    ]


def test_a_published_port_belongs_to_its_container_behind_docker_proxy(root):
    put(root, {"/proc/net/tcp": listening(("00000000:1F40", "12")), "/proc/32/comm": "docker-proxy\n"})
    (root / "proc/32/fd").mkdir()
    (root / "proc/32/fd/3").symlink_to("socket:[12]")
    port = {"port": 8000, "address": "0.0.0.0", "container_port": 8000, "protocol": "tcp"}
    found = ports(request(root), [{"id": "c", "name": "sparkfleet-vllm", "ports": [port]}])
    assert found == [
        {
            "port": 8000,
            "address": "0.0.0.0",
            "pid": 32,
            "process": "docker-proxy",
            "container": "sparkfleet-vllm",
        }
    ]


def test_environment(root):
    put(root, {"/opt/sparkfleet/venv/bin/python": ""})
    answer = json.dumps({"python": "3.12.3", "distributions": {"docker": "7.2.0"}})
    assert probes.environment(request(root, run=lambda a, t: answer)) == {
        "path": "/opt/sparkfleet/venv", "python": "3.12.3", "distributions": {"docker": "7.2.0"},
    }  # fmt: skip
    with pytest.raises(ProbeError):
        probes.environment(request(root, run=no_command))


def test_environment_of_this_python_is_read(tmp_path):
    (tmp_path / "bin").mkdir()
    import sys

    (tmp_path / "bin/python").symlink_to(sys.executable)
    found = probes.environment(Request(environment=str(tmp_path)))
    assert found["python"].startswith("3.")


@pytest.mark.parametrize(
    ("files", "removes"),
    [
        ({}, True),
        ({"/etc/systemd/logind.conf": "[Login]\n#RemoveIPC=no\n"}, True),
        ({"/etc/systemd/logind.conf": "[Login]\nRemoveIPC=no\n"}, False),
        (
            {
                "/etc/systemd/logind.conf": "RemoveIPC=no\n",
                "/etc/systemd/logind.conf.d/z.conf": "RemoveIPC=yes\n",
            },
            True,
        ),
        (
            {
                "/usr/lib/systemd/logind.conf.d/z.conf": "RemoveIPC=no\n",
                "/etc/systemd/logind.conf.d/z.conf": "",
            },
            True,
        ),
    ],
)
def test_remove_ipc(root, files, removes):
    put(root, files)
    assert probes.remove_ipc(request(root)) is removes


# All of them


def test_each_probe_stands_alone():
    def broken():
        raise ValueError("boom")

    started = time.monotonic()
    values, reasons = probes.each(
        {"good": lambda: 1, "bad": broken, "slow": lambda: time.sleep(5)}, timeout=0.3
    )
    assert time.monotonic() - started < 2
    assert values == {"good": 1, "bad": None, "slow": None}
    assert reasons == {"bad": "ValueError: boom", "slow": "no answer within 0.3 s"}


def test_a_command_that_fails_or_hangs_has_a_reason():
    with pytest.raises(ProbeError, match="exited 3: why"):
        run_command(["sh", "-c", "echo why >&2; exit 3"], 5)
    with pytest.raises(ProbeError, match="more than 0.1 s"):
        run_command(["sleep", "5"], 0.1)
    with pytest.raises(ProbeError, match="is not there"):
        run_command(["no-such-command-here"], 5)


def test_an_empty_machine_gives_reasons_and_no_traceback(tmp_path):
    (tmp_path / "proc").mkdir()
    info = probes.gather(request(tmp_path, run=no_command))
    assert set(info["unknown"]) == {"os", "driver", "memory", "ports"}
    assert all("Error" not in reason for reason in info["unknown"].values()), info["unknown"]
    judged = judge(info, DEFAULTS, daemon_json.needed(info, DEFAULTS))
    assert {"gb10", "driver", "memory", "port"} <= {problem["check"] for problem in judged["problems"]}


def test_a_host_that_has_guarded_a_port_says_so(root):
    assert probes.gather(request(root))["guarded"] is False
    (root / "etc/sparkfleet/port-guard").mkdir(parents=True)
    found = probes.gather(request(root))
    assert (found["guarded"], found["unit_guarded"]) == (True, False)
    (root / "etc/sparkfleet/unit-guard").mkdir()
    assert probes.gather(request(root))["unit_guarded"] is True


def test_what_will_be_dockers_data_root_is_measured(root):
    assert probes.gather(request(root))["disks"]["docker"]["path"] == "/var/lib/docker"
    put(root, {"/etc/docker/daemon.json": '{"data-root": "/data"}'})
    assert probes.gather(request(root))["disks"]["docker"]["path"] == "/data"
    assert probes.gather(request(root, data_root="/asked"))["disks"]["docker"]["path"] == "/asked"


# The module, and the action plugin that judges


def run_module(capsys, arguments):
    with patch_module_args(arguments), pytest.raises(SystemExit):
        spark_info.main()
    return json.loads(capsys.readouterr().out)


def run_action(answer: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """What the action plugin makes of a module's answer."""
    action = object.__new__(ActionModule)
    action._task = SimpleNamespace(async_val=0, check_mode=False, args=arguments, diff=False)
    action._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
    action._execute_module = lambda name, task_vars=None: dict(answer)
    return action.run(task_vars={})


def look(capsys, arguments):
    return run_action(run_module(capsys, arguments))


def test_it_returns_what_it_documents(capsys):
    documented = yaml.safe_load(spark_info.RETURN)
    result = look(capsys, {"wanted": {"requirements": ["docker==7.2.0"]}})
    assert set(result) - {"changed", "invocation", "ansible_facts", "warnings", "deprecations"} == set(
        documented
    )
    assert result["changed"] is False
    bare = look(capsys, {})
    assert "problems" not in bare and bare["architecture"] == os.uname().machine


def test_it_judges_by_the_defaults_it_documents():
    documented = yaml.safe_load(spark_info.DOCUMENTATION)["options"]["wanted"]["suboptions"]
    assert {n: o["default"] for n, o in documented.items()} == DEFAULTS


@pytest.mark.parametrize(
    ("wanted", "words"),
    [({"requirements": ["docker[ssh]"]}, "docker[ssh]"), ({"minimum_driver": "newest"}, "newest")],
)
def test_it_refuses_what_it_cannot_check(capsys, wanted, words):
    result = look(capsys, {"wanted": wanted})
    assert result["failed"] and words in result["msg"]


def test_a_host_that_no_judge_foresaw_fails_with_all_that_was_seen(capsys):
    answer = run_module(capsys, {"wanted": {}})
    answer["disks"] = {"store": {}}
    result = run_action(answer)
    assert result["failed"] and "cannot judge what was seen: KeyError" in result["msg"]
    assert result["exception"] and result["architecture"] and "to_judge" not in result


def test_a_module_that_failed_is_not_judged():
    result = run_action({"failed": True, "msg": "no Python there"})
    assert result["msg"] == "no Python there" and "problems" not in result


def test_a_password_that_is_wanted_of_daemon_json_does_not_come_back_to_be_judged(capsys, tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text(daemon_json.render({"proxies": {"http-proxy": "http://me:older@proxy"}}))
    wanted = {"daemon_config": {"proxies": {"http-proxy": "http://me:secret@newer"}}}
    answer = run_module(capsys, {"daemon_config": str(path), "wanted": wanted})
    answer.pop("invocation", None)  # what the caller writes is shown to the caller, by some Ansibles
    assert "secret" not in json.dumps(answer) and "older" not in json.dumps(answer)
    # It is compared all the same, and what differs is told without it.
    result = run_action(answer, wanted=wanted)
    assert "proxies" in result["todo"]["daemon"]["keys"]
    (finding,) = [one for one in result["drift"]["findings"] if "proxies" in one["expected"]]
    assert "http://***@newer" in finding["expected"] and "http://***@proxy" in finding["seen"]


def test_module_shows_no_password_of_daemon_json(capsys, tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text(daemon_json.render({"proxies": {"http-proxy": "http://me:secret@proxy"}}))
    result = run_module(capsys, {"daemon_config": str(path)})
    assert result["daemon_config"]["content"] == {"proxies": {"http-proxy": "http://***@proxy"}}
    assert "secret" not in json.dumps(result)
