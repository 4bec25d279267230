"""A container that is exactly the wanted one, for tests that change one thing of it."""

from __future__ import annotations

import copy
from typing import Any

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PATCH = "/srv/s/patches/1/p.py"
TARGET = "/usr/lib/python3/dist-packages/vllm/p.py"

CONTAINER: dict[str, Any] = {
    "name": "sparkfleet-vllm",
    "image": f"vllm/vllm-openai@{DIGEST}",
    "command": [
        "/models/b", "--host", "0.0.0.0", "--port", "8000", "--served-model-name", "m",
        "--speculative-config", '{"method":"mtp","num_speculative_tokens":1}', "--kv-cache-dtype", "fp8",
    ],
    "env": {"HF_HUB_OFFLINE": "1"},
    "volumes": ["/srv/s/models/b:/models/b:ro", f"{PATCH}:{TARGET}:ro", "/srv/s/cache:/root/.cache/vllm:rw"],
    "device_requests": [{"driver": "nvidia", "count": -1, "capabilities": [["gpu"]]}],
    "privileged": False,
    "network_mode": "bridge",
    "published_ports": ["127.0.0.1:8000:8000"],
    "ipc_mode": "private",
    "shm_size": "8g",
    "cap_drop": ["ALL"],
    "security_opts": ["no-new-privileges"],
    "auto_remove": False,
    "log_driver": "json-file",
    "log_options": {"max-size": "50m", "max-file": "4"},
}  # fmt: skip
SERVING: dict[str, Any] = {
    "recipe": "r",
    "container": CONTAINER,
    "models": {"body": {"path": "/srv/s/models/b", "mount": "/models/b"}},
    "files": [{"path": TARGET, "md5": "1" * 32, "sha256": "2" * 64, "host_path": PATCH}],
    "gate": {
        "served_model": "m",
        "base_url": "http://127.0.0.1:8000",
        "speculation": {"method": "mtp", "num_speculative_tokens": 1},
        "acceptance_floor": 0.4,
        "minimum_drafts": 200,
    },
}
IMAGE: dict[str, Any] = {
    "Id": "sha256:" + "1" * 64,
    "RepoDigests": [f"vllm/vllm-openai@{DIGEST}"],
    "Config": {
        "Entrypoint": ["vllm", "serve"],
        "Env": ["PATH=/usr/bin", "CUDA=13"],
        "Volumes": {"/scratch": {}},
    },
}


def running(**over: Any) -> dict[str, Any]:
    """What the engine says of it. `over`: dotted path with `__` -> value."""
    data: dict[str, Any] = {
        "Id": "c" * 64,
        "Name": "/sparkfleet-vllm",
        "Image": IMAGE["Id"],
        "RestartCount": 0,
        "State": {"Status": "running", "StartedAt": "2026-11-24T00:00:00Z", "FinishedAt": "", "ExitCode": 0},
        "Config": {
            "Image": CONTAINER["image"],
            "Entrypoint": ["vllm", "serve"],
            "Cmd": list(CONTAINER["command"]),
            "Env": ["HF_HUB_OFFLINE=1", "PATH=/usr/bin", "CUDA=13"],
            "Labels": {"maintainer": "x", "sparkfleet.vllm.patches": "s"},
        },
        "HostConfig": {
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "NetworkMode": "default",
            "IpcMode": "private",
            "ShmSize": 8 << 30,
            "PortBindings": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000"}]},
            "DeviceRequests": [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}],
            "Memory": 0,
            "PidsLimit": None,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "50m", "max-file": "4"}},
        },
        "Mounts": [
            {"Type": "bind", "Source": "/srv/s/models/b", "Destination": "/models/b", "RW": False},
            {"Type": "bind", "Source": PATCH, "Destination": TARGET, "RW": False},
            {"Type": "bind", "Source": "/srv/s/cache", "Destination": "/root/.cache/vllm", "RW": True},
            {"Type": "volume", "Name": "anonymous", "Destination": "/scratch", "RW": True},
        ],
    }
    data = copy.deepcopy(data)
    for path, value in over.items():
        *parents, last = path.split("__")
        place = data
        for parent in parents:
            place = place[parent]
        place[last] = value
    return data
