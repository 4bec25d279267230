#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: spark_info
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Collect everything about a DGX Spark that matters before it serves
description:
  - Looks at a host in one execution, read-only, with only the standard library of the system's Python.
  - With O(wanted) it also judges the host, and reports all problems and everything that is left to install. The controller does the
    judging. daemon.json is compared on the host, and its passwords stay there.
  - Every probe is independent. A probe that fails or takes too long returns null, with its reason in RV(unknown).
options:
  store:
    description: Directory of the content-addressed store. Free room is measured at its nearest existing parent.
    type: path
    default: /srv/sparkfleet
  environment:
    description: Python environment of the modules.
    type: path
    default: /opt/sparkfleet/venv
  daemon_config:
    description: Configuration file of the Docker engine.
    type: path
    default: /etc/docker/daemon.json
  socket:
    description: Socket of the Docker engine, used only while dockerd runs.
    type: path
    default: /var/run/docker.sock
  timeout:
    description: Time limit of each probe, in seconds. Probes run in parallel.
    type: float
    default: 10
  wanted:
    description: Requirements for the host. Without them nothing is judged.
    type: dict
    suboptions:
      architectures:
        description: Machine architectures, as C(uname -m) prints them.
        type: list
        elements: str
        default: [aarch64]
      gb10:
        description: Whether the host must have a GB10.
        type: bool
        default: true
      toolkit:
        description: Whether the engine must be able to give a GPU to a container.
        type: bool
        default: true
      minimum_driver:
        description: Oldest accepted NVIDIA driver. Empty accepts any.
        type: str
        default: "580"
      minimum_memory_gib:
        description: Total memory in GiB.
        type: float
        default: 50
      minimum_store_gib:
        description: Room for the store in GiB, free or already holding models.
        type: float
        default: 40
      minimum_docker_gib:
        description: Room for Docker's images in GiB, free or already holding images.
        type: float
        default: 40
      ports:
        description: TCP ports that must be free or held by O(wanted.container).
        type: list
        elements: int
        default: [8000]
      container:
        description: Name of the serving container.
        type: str
        default: sparkfleet-vllm
      docker_package:
        description: Package to install if there is no Docker engine.
        type: str
        default: docker.io
      toolkit_package:
        description: Package to install if there is no nvidia-container-toolkit.
        type: str
        default: nvidia-container-toolkit
      registry_mirrors:
        description: Mirrors of Docker Hub the engine must know.
        type: list
        elements: str
        default: []
      fleet_registry:
        description: The mirror it must ask before all others. Empty for none.
        type: str
        default: ""
      daemon_config:
        description: Further required content of daemon.json.
        type: dict
        default: {}
      restart_docker:
        description: When Docker may restart. V(auto) means if it stops no container.
        type: str
        choices: [auto, always, never]
        default: auto
      directories:
        description: Directories that must exist.
        type: list
        elements: path
        default: []
      requirements:
        description: Distributions the environment must hold, as C(name), or with versions, as C(name==1.*) or C(name>=1.2,<2).
        type: list
        elements: str
        default: []
extends_documentation_fragment:
  - sparkfleet.vllm.attributes.looks
attributes:
  async:
    description: The controller judges what the module returns.
    support: none
seealso:
  - module: sparkfleet.vllm.daemon_config
  - module: sparkfleet.vllm.python_environment
"""

EXAMPLES = r"""
- name: Look at a Spark
  sparkfleet.vllm.spark_info:
  become: true
  register: spark

- name: Judge a host that serves without a GPU
  sparkfleet.vllm.spark_info:
    wanted:
      architectures: [aarch64, x86_64]
      gb10: false
      toolkit: false
      minimum_driver: ""
      minimum_memory_gib: 8
      ports: [8000]
      requirements: ["docker==7.1.0"]
  become: true
  register: host
"""

RETURN = r"""
architecture:
  description: Machine architecture.
  returned: always
  type: str
  sample: aarch64
kernel:
  description: Release of the kernel.
  returned: always
  type: str
  sample: 6.11.0-1016-nvidia
uid:
  description: User id the probes ran as. Other users' processes and the engine need 0.
  returned: always
  type: int
  sample: 0
os:
  description: The distribution, C(id), C(version) and C(name).
  returned: always
  type: dict
  sample: {id: ubuntu, version: "24.04", name: Ubuntu 24.04.3 LTS}
apt:
  description: Whether apt-get is there.
  returned: always
  type: bool
  sample: true
systemd:
  description: Whether systemd runs the host.
  returned: always
  type: bool
  sample: true
remove_ipc:
  description: Whether logind removes the shared memory of a user whose last session ends.
  returned: always
  type: bool
  sample: true
gb10:
  description: Whether there is a GB10, with the evidence, C(pci) addresses of 10de:2e12, C(name) by nvidia-smi, DMI C(product).
  returned: always
  type: dict
  sample: {present: true, pci: ["000f:01:00.0"], name: NVIDIA GB10, product: NVIDIA_DGX_Spark}
driver:
  description: Version of the NVIDIA driver.
  returned: always
  type: str
  sample: 580.95.05
gpu:
  description:
    - Whether a new container could use the GPU. C(loaded) is the driver in the kernel, C(libraries) are the versions of its library
      on the disk, C(error) has the words of an nvidia-smi that fails, and is null otherwise.
  returned: always
  type: dict
  sample: {loaded: 580.95.05, libraries: [580.95.05], error: null}
fabric:
  description:
    - The network between Sparks, from files of the kernel alone. C(interfaces) are those with hardware or an address, by name, each with
      its IPv4 C(address), C(mtu), whether it is C(up), C(speed) in Mb/s, C(driver), and the PCIe C(link) in lanes and GT/s.
    - C(rdma) are the ports of RDMA devices, each with C(device), C(port), C(interface), C(state), C(rate) in Gb/s, and C(gid_index),
      where its table has RoCE v2 over IPv4.
    - C(kernel) is the kernel's release, C(bios) the date of the BIOS. What the kernel does not tell is null.
  returned: always
  type: dict
  sample:
    interfaces:
      enp1s0f0np0:
        address: 192.168.100.11
        mtu: 9000
        up: true
        speed: 200000
        driver: mlx5_core
        link: {width: 4, max_width: 4, speed: 32.0, max_speed: 32.0}
    rdma:
      - {device: rocep1s0f0, port: 1, interface: enp1s0f0np0, state: ACTIVE, rate: 200.0, gid_index: 3}
    kernel: 6.17.0-1014-nvidia
    bios: "2026-04-14"
memory:
  description: Unified memory in bytes, total and available, and swap.
  returned: always
  type: dict
  sample: {total_bytes: 128468000768, available_bytes: 121000001536, swap_bytes: 17179865088}
disks:
  description:
    - Room for C(store) and C(docker) in bytes. C(nearest) is the existing directory it was measured at, C(device) shows whether
      both share a file system, C(held_bytes) is the space of existing models or images.
  returned: always
  type: dict
  sample:
    store: {path: /srv/sparkfleet, nearest: /srv, device: 66306, free_bytes: 3000000000000, total_bytes: 3900000000000, held_bytes: 0}
    docker: {path: /var/lib/docker, nearest: /var/lib/docker, device: 66306, free_bytes: 3000000000000, total_bytes: 3900000000000, held_bytes: 0}
directories:
  description: Those of O(wanted.directories) that exist.
  returned: always
  type: list
  elements: str
  sample: [/srv/sparkfleet]
alterable:
  description: Those of O(wanted.directories) that others than root may alter, with who may. Also the directory of RV(cache).
  returned: always
  type: dict
  sample: {}
cache:
  description: Directory that containers write to, below O(store), and its mode; null if it is not there.
  returned: always
  type: dict
  sample: {path: /srv/sparkfleet/cache, mode: "0700"}
docker:
  description:
    - The Docker engine. C(snap) means that it is a snap, which nothing here can set up; C(started) is in seconds since the epoch,
      C(images_bytes) in bytes, with layers that images share counted once from API 1.42 on; C(images_root) is where the images lie,
      which for those in containerd is not below C(data_root); C(flags) are keys of daemon.json that dockerd has from its
      command line; C(containers) are the running ones with C(id), C(name), C(image), C(labels) and published C(ports). Everything that
      the engine reports is null while it does not run.
  returned: always
  type: dict
  sample:
    installed: true
    snap: false
    running: true
    pid: 1200
    started: 1795470000.0
    flags: [hosts]
    socket: /var/run/docker.sock
    version: 29.1.3
    api_version: "1.52"
    data_root: /var/lib/docker
    images_root: /var/lib/containerd
    storage_driver: overlayfs
    containerd_snapshotter: true
    cgroup_version: "2"
    live_restore: false
    runtimes: [io.containerd.runc.v2, nvidia, runc]
    default_runtime: runc
    registry_mirrors: []
    insecure_registries: ["127.0.0.0/8", "::1/128"]
    cdi_devices: [nvidia.com/gpu=0]
    images_bytes: 21474836480
    containers:
      - id: 4f0b…
        name: sparkfleet-vllm
        image: vllm/vllm-openai@sha256:…
        labels: {}
        ports: [{port: 8000, address: 127.0.0.1, container_port: 8000, protocol: tcp}]
daemon_config:
  description: daemon.json, C(path), C(exists), its C(content), or the C(error) with line and column if it is not JSON.
  returned: always
  type: dict
  sample: {path: /etc/docker/daemon.json, exists: true, content: {log-driver: local}, error: null}
toolkit:
  description:
    - nvidia-container-toolkit. C(hook) and C(cdi_hook) are paths in dockerd's PATH, C(mode) is C(nvidia-container-runtime.mode) of
      its C(config.toml), C(usable) says whether the running engine can provide a GPU, C(unseen) whether the hooks were installed
      after dockerd started, which looks for them only at its start.
  returned: always
  type: dict
  sample:
    installed: true
    version: 1.19.0-1
    hook: /usr/bin/nvidia-container-runtime-hook
    cdi_hook: /usr/bin/nvidia-cdi-hook
    mode: auto
    runtime: true
    cdi: false
    unseen: false
    usable: true
ports:
  description: Listening TCP ports and those that Docker publishes, each with address, pid, process and container if known.
  returned: always
  type: list
  elements: dict
  sample: [{port: 8000, address: 0.0.0.0, pid: 4711, process: docker-proxy, container: sparkfleet-vllm}]
guarded:
  description: Whether M(sparkfleet.vllm.port_guard) has set up rules here.
  returned: always
  type: bool
  sample: false
unit_guarded:
  description: Whether M(sparkfleet.vllm.unit_guard) has set up rules here.
  returned: always
  type: bool
  sample: false
environment:
  description: The modules' environment, its C(path), version of its C(python) (null if there is none) and C(distributions).
  returned: always
  type: dict
  sample: {path: /opt/sparkfleet/venv, python: 3.12.3, distributions: {docker: 7.1.0}}
ensurepip:
  description: Whether the system's Python can create an environment with pip (Debian's package python3-venv).
  returned: always
  type: bool
  sample: true
unknown:
  description: Why a probe failed, by its name. C(docker_api) means an engine that runs but does not answer,
    C(docker_images) one that does not tell in time what its images hold.
  returned: always
  type: dict
  sample: {driver: "nvidia-smi is not there"}
problems:
  description: Problems that the role cannot repair. Each has C(check), C(expected), C(seen) and C(do).
  returned: when O(wanted) is given
  type: list
  elements: dict
  sample: [{check: architecture, expected: aarch64, seen: x86_64, do: take the host out of the inventory}]
report:
  description: RV(problems) as one text for people. Empty if there is none.
  returned: when O(wanted) is given
  type: str
  sample: ""
todo:
  description:
    - What is missing and can be installed. C(packages), whether the Docker or toolkit repository is needed for them, C(directories),
      C(private) for those that only root shall enter, C(requirements) of the environment, C(start) of the engine, and
      for C(daemon) the changed C(keys), the C(action) that applies them (none, reload, restart), its reasons in C(because) and the containers that it C(stops).
  returned: when O(wanted) is given
  type: dict
  sample:
    packages: [nvidia-container-toolkit]
    docker_repository: false
    toolkit_repository: true
    directories: [/srv/sparkfleet]
    private: [/srv/sparkfleet/cache]
    requirements: ["docker==7.1.0"]
    daemon: {keys: [registry-mirrors], action: reload, because: [], stops: []}
    start: false
changes:
  description: RV(todo) in words, one line a change.
  returned: when O(wanted) is given
  type: list
  elements: str
  sample: [create /srv/sparkfleet]
usable:
  description: Whether engine and environment are there, so that modules that need them can run now.
  returned: when O(wanted) is given
  type: bool
  sample: true
drift:
  description: What differs, as M(sparkfleet.vllm.drift_report) takes it. M(sparkfleet.vllm.serve_drift) has an example.
  type: dict
  returned: when O(wanted) is given
"""

import traceback
from typing import Any

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._host import daemon_json, probes
from ..module_utils._host.request import Request

WANTED: dict[str, dict[str, Any]] = {
    "architectures": {"type": "list", "elements": "str", "default": ["aarch64"]},
    "gb10": {"type": "bool", "default": True},
    "toolkit": {"type": "bool", "default": True},
    "minimum_driver": {"type": "str", "default": "580"},
    "minimum_memory_gib": {"type": "float", "default": 50},
    "minimum_store_gib": {"type": "float", "default": 40},
    "minimum_docker_gib": {"type": "float", "default": 40},
    "ports": {"type": "list", "elements": "int", "default": [8000]},
    "container": {"type": "str", "default": "sparkfleet-vllm"},
    "docker_package": {"type": "str", "default": "docker.io"},
    "toolkit_package": {"type": "str", "default": "nvidia-container-toolkit"},
    "registry_mirrors": {"type": "list", "elements": "str", "default": []},
    "fleet_registry": {"type": "str", "default": ""},
    "daemon_config": {"type": "dict", "default": {}},
    "restart_docker": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
    "directories": {"type": "list", "elements": "path", "default": []},
    "requirements": {"type": "list", "elements": "str", "default": []},
}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "store": {"type": "path", "default": "/srv/sparkfleet"},
    "environment": {"type": "path", "default": "/opt/sparkfleet/venv"},
    "daemon_config": {"type": "path", "default": "/etc/docker/daemon.json"},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
    "timeout": {"type": "float", "default": 10},
    "wanted": {"type": "dict", "options": WANTED},
}


OF_DAEMON_JSON = ("registry_mirrors", "fleet_registry", "daemon_config", "restart_docker")
"""The wanted daemon.json. The module compares it with the file here: both may hold a password, which stays on the host."""


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    wanted = module.params["wanted"]
    asked = wanted or {"directories": [], "daemon_config": {}}
    info = probes.gather(
        Request(
            store=module.params["store"],
            directories=tuple(asked["directories"]),
            environment=module.params["environment"],
            daemon_config=module.params["daemon_config"],
            data_root=asked["daemon_config"].get("data-root"),
            socket=module.params["socket"],
            timeout=module.params["timeout"],
        )
    )
    seen = daemon_json.redacted(info)
    if wanted:
        try:
            daemon = daemon_json.needed(info, wanted)
        except Exception as error:
            # Nobody foresaw such a file. What was seen is worth more than a traceback alone.
            module.fail_json(
                msg=f"cannot judge what was seen: {error!r}", exception=traceback.format_exc(), **seen
            )
        # For the action plugin, which judges the rest and removes this from the result.
        others = {name: value for name, value in wanted.items() if name not in OF_DAEMON_JSON}
        seen["to_judge"] = {"wanted": others, "daemon": daemon}
    module.exit_json(changed=False, **seen)


if __name__ == "__main__":
    main()
