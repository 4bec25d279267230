"""What people do to a host by hand, how it is undone, and what is to be found of it.

A finding is its subject and kind, and words that it holds. All scripts are bash, run as root on the host.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Record = Mapping[str, Any]
"""What serves and has passed the gate, as state.json has it, and the `labels` of its container."""
Script = Callable[[Record], str]
Finding = tuple[str, ...]

NAME, ASIDE = "sparkfleet-vllm", "kept"
TARGET = "/usr/local/lib/python3.12/dist-packages/vllm/model_executor/models/gemma4_mtp.py"
UNIT = f"/etc/systemd/system/{NAME}.service.d"
SERVES = "timeout 60 bash -c 'until curl -fs -o /dev/null http://127.0.0.1:8000/health; do sleep 0.2; done'"
# More often than anybody does it by hand within an hour.
RESTARTED = f"systemctl reset-failed {NAME}; systemctl restart {NAME}; {SERVES}"
UNWATCHED = ("boot: boot-unit-inactive", "after an end that nobody asked for")
"""Of a server that somebody started by hand."""


@dataclass(frozen=True)
class Edit:
    name: str
    do: Script
    undo: Script
    findings: tuple[Finding, ...] = ()
    roles: tuple[str, ...] = ("vllm_serve",)
    """Whose look it concerns, where it is looked at alone"""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Serve arguments that are asked for besides, while it is looked at"""


def edit(name: str, do: str, undo: str, *findings: Finding, **arguments: Any) -> Edit:
    """One that is the same whatever serves."""
    return Edit(name, lambda _: do, lambda _: undo, findings, arguments=arguments)


def files(name: str, do: Mapping[str, str], *findings: Finding) -> Edit:
    """{file: script}, run with a copy of the file kept in /root, which is put back."""
    kept = {path: f"/root/{path.rpartition('/')[2]}" for path in do}
    return edit(
        name,
        "\n".join(f"cp -p {path} {kept[path]}; {script}" for path, script in do.items()),
        "\n".join(f"mv {kept[path]} {path}" for path in do),
        *findings,
    )


# -- a server that somebody started


def run(record: Record, **over: Any) -> str:
    """`docker run` of the recorded container, with some things otherwise: how somebody would try something out."""
    spec: dict[str, Any] = {
        **record["container"],
        "labels": record["labels"],
        "flags": [],
        "restart": "no",
    }
    spec |= over
    words = ["docker", "run", "--detach", f"--name={spec['name']}", "--gpus=all"]
    words += [f"--env={name}={value}" for name, value in spec["env"].items()]
    words += [f"--volume={volume}" for volume in spec["volumes"]]
    words += [f"--publish={port}" for port in spec["published_ports"]]
    words += [f"--label={name}={value}" for name, value in spec["labels"].items()]
    words += [f"--ipc={spec['ipc_mode']}", f"--shm-size={spec['shm_size']}", "--cap-drop=ALL"]
    words += ["--security-opt=no-new-privileges", f"--restart={spec['restart']}"]
    words += [f"--log-driver={spec['log_driver']}"]
    words += [f"--log-opt={name}={value}" for name, value in spec["log_options"].items()]
    return shlex.join([*words, *spec["flags"], spec["image"], *spec["command"]])


def instead(
    name: str,
    change: Callable[[Record], Mapping[str, Any]],
    *findings: Finding,
    before: str = ":",
    then: str = ":",
) -> Edit:
    """A server that was started by hand, while the one that passed lies aside, unharmed."""

    def do(record: Record) -> str:
        over = change(record["container"])
        started = run(record, **over)
        return f"{before}\nsystemctl stop {NAME}; docker rename {NAME} {ASIDE}\n{started}\n{SERVES}\n{then}"

    def undo(record: Record) -> str:
        made = change(record["container"]).get("name", NAME)
        return f"docker rm --force {made} || true; docker rename {ASIDE} {NAME}; {RESTARTED}"

    return Edit(name, do, undo, findings)


def everything(spec: Record) -> Mapping[str, Any]:
    """All that a container is started with."""
    words = list(spec["command"])
    words[words.index("--max-model-len") + 1] = "2048"
    words.remove("--enable-prefix-caching")
    place = words.index("--speculative-config") + 1
    words[place] = json.dumps(json.loads(words[place]) | {"num_speculative_tokens": 2})
    words[words.index("--served-model-name") + 1] = "another"
    volumes = [volume for volume in spec["volumes"] if TARGET not in volume]
    tried = {"HF_HUB_OFFLINE": "0", "EXTRA": "1", "HF_TOKEN": "hf_of_somebody"}
    return {
        "image": "sparkfleet-lab/stub",
        "command": [*words, "--max-num-seqs", "2"],
        "env": {**spec["env"], **tried, "STUB_ACCEPTANCE": "0"},
        "volumes": [volumes[0].replace(":ro", ":rw"), *volumes[1:], "/tmp:/data"],
        "labels": {},
        "flags": ["--cap-add=SYS_PTRACE", "--pid=host", "--cpus=1"],
        "published_ports": ["8000:8000"],
        "restart": "always",
    }


ASK = {"model": "another", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 400}

NEIGHBOUR = edit(
    "a neighbour on the GPU",
    "docker run --detach --name neighbour --gpus all --entrypoint sleep sparkfleet-lab/stub:2 600",
    "docker rm --force neighbour",
    ("host: gpu-shared", "neighbour"),
)

# -- at once

AT_ONCE = (
    instead(
        "a server of which nothing is as it was",
        everything,
        ("container: image", "(as sparkfleet-lab/stub)"),
        ("container: argument", "--max-model-len 4096", "--max-model-len 2048"),
        ("container: argument", "--enable-prefix-caching", "not set"),
        ("container: argument", "--max-num-seqs not set", "--max-num-seqs 2"),
        ("container: speculation", "num_speculative_tokens: 1", "num_speculative_tokens: 2"),
        ("container: served-model", "stub", "another"),
        ("container: environment", "HF_HUB_OFFLINE=1", "HF_HUB_OFFLINE=0"),
        ("container: environment", "EXTRA not set", "EXTRA=1"),
        ("container: environment", "HF_TOKEN not set", "its value is not shown"),
        ("container: environment", "STUB_ACCEPTANCE=0"),
        ("container: mount", "/models/body, read-only", "/models/body, writable"),
        ("container: mount", TARGET, f"nothing mounted at {TARGET}"),
        ("container: mount", "nothing mounted at /data"),
        ("container: label", "sparkfleet.vllm.patches"),
        ("container: security", "added capabilities: none", "SYS_PTRACE"),
        ("container: security", "PID namespace", "host"),
        ("container: limit", "CPUs"),
        ("container: port", "127.0.0.1:8000:8000", "0.0.0.0:8000:8000"),
        ("container: restart-policy", "its unit restarts it", "always"),
        ("container: file-in-container", "/opt/stub/server.py changed"),
        ("patches: patch-in-container", "gemma4_mtp.py"),
        ("server: acceptance", "at least 40%", "0.0% of 399 drafts"),
        # Another image under the same name.
        before="docker pull --quiet sparkfleet-lab/stub:2; docker tag sparkfleet-lab/stub:2 sparkfleet-lab/stub:latest",
        then=f"""
            docker exec {NAME} sed -i '$a # tried something' /opt/stub/server.py
            curl -fsS -o /dev/null -d {shlex.quote(json.dumps(ASK))} http://127.0.0.1:8000/v1/chat/completions
        """,
    ),
    edit(
        "the unit that keeps it running",
        f"""
            systemctl disable --quiet {NAME}; mkdir -p {UNIT}
            printf '[Service]\\nRestartSec=1\\n' >{UNIT}/override.conf; systemctl daemon-reload
        """,
        f"systemctl revert {NAME}; systemctl enable --quiet {NAME}",
        ("boot: boot-unit-disabled", "disabled"),
        ("boot: boot-unit-changed", "override.conf"),
    ),
    files(
        "driver, engine and record",
        {
            "/usr/bin/nvidia-smi": "sed -i 's/580.95.05/570.12.01/' /usr/bin/nvidia-smi",
            "/etc/docker/daemon.json": "sed -i 's/172.31.250.10:5000/192.0.2.1:5000/' /etc/docker/daemon.json",
            "/var/lib/sparkfleet/state.json": "rm /var/lib/sparkfleet/state.json",
        },
        ("host: driver-too-old", "580", "570.12.01"),
        ("engine: daemon-json", "172.31.250.10:5000", "192.0.2.1"),
        ("engine: engine-not-reloaded", "registry-mirrors"),
        ("record: never-passed", "nothing on record"),
    ),
    NEIGHBOUR,
)

# -- models, which a run mends

CUT, TOUCHED, CHANGED, GONE = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
)
MODELS = Edit(
    "models",
    lambda record: (
        f"""
        cd {record["models"]["body"]["path"]}; truncate --size=-1 {CUT}; touch {TOUCHED}; rm {GONE}; echo x >notes.txt
        printf x | dd of={CHANGED} bs=1 conv=notrunc status=none
    """
    ),
    lambda record: f"rm -f {record['models']['body']['path']}/notes.txt",
    (
        ("models: model-changed", CUT, "bytes"),
        ("models: model-changed", TOUCHED, "drift_verify=full"),
        ("models: model-changed", CHANGED, "drift_verify=full"),
        ("models: model-missing", GONE),
        ("models: model-extra", "notes.txt"),
    ),
)
HASHED: tuple[Finding, ...] = (
    ("models: model-changed", CUT, "bytes"),
    ("models: model-changed", CHANGED, "sha256"),
    ("models: model-missing", GONE),
    ("models: model-extra", "notes.txt"),
)
"""What is found of them when every byte is read"""
PACKAGES = "/opt/sparkfleet/venv/lib/python3*/site-packages"
ENVIRONMENT = edit(
    "a package of the modules' environment",
    f"mv {PACKAGES}/docker-*.dist-info /root/",
    f"mv /root/docker-*.dist-info {PACKAGES}/",
    ("engine: environment", "docker", "not installed"),
)

# -- one after the other

HOST, PATCHES, ALL = (
    ("prerequisites", "vllm_serve"),
    ("patch_pin", "vllm_serve"),
    ("prerequisites", "patch_pin", "vllm_serve"),
)


def body(record: Record) -> str:
    return str(record["models"]["body"]["path"])


def patch(record: Record) -> str:
    return str(record["files"][0]["host_path"])


ONE_BY_ONE = (
    replace(instead("the same server by hand", lambda spec: {}, UNWATCHED), roles=ALL),
    edit(
        "stopped",
        f"docker update --restart=always {NAME}; docker stop -t 5 {NAME}",
        f"docker update --restart=no {NAME}; {RESTARTED}",
        ("container: stopped", "exited since"),
        ("container: restart-policy", "its unit restarts it", "always"),
    ),
    instead(
        "a server that does not do as it was told",
        lambda spec: {"env": {**spec["env"], "STUB_NO_SPEC": "1", "STUB_CACHE_DTYPE": "auto"}},
        ("container: environment", "STUB_NO_SPEC=1"),
        ("container: environment", "STUB_CACHE_DTYPE=auto"),
        ("server: speculation-ignored", "passed on the command line"),
        ("server: effective-config", "--kv-cache-dtype fp8", "cache_dtype=auto"),
        UNWATCHED,
    ),
    replace(
        instead(
            "another server on the port",
            lambda spec: {
                "name": "mine",
                "command": [*spec["command"][:-1], "mine"],
                "labels": {},
                "flags": ["--no-healthcheck"],
            },
            ("host: port-taken", "port 8000", "container mine"),
            ("host: gpu-shared", "container mine"),
            ("container: container-missing", NAME),
        ),
        roles=HOST,
    ),
    replace(NEIGHBOUR, roles=ALL),
    # In place: the process would load it at its next start.
    Edit(
        "a patch edited in the store",
        lambda record: f"cp -p {patch(record)} /root/patch; echo '# tried something' >>{patch(record)}",
        lambda record: f"cat /root/patch >{patch(record)}; touch -r /root/patch {patch(record)}; {RESTARTED}",
        (("patches: patch-store", "gemma4_mtp.py"),),
        PATCHES,
    ),
    # As an editor does it: the process keeps the old file.
    Edit(
        "a patch replaced in the store",
        lambda record: (
            f"mv {patch(record)} /root/kept; cp /root/kept {patch(record)}; echo >>{patch(record)}"
        ),
        lambda record: f"mv /root/kept {patch(record)}; {RESTARTED}",
        (("patches: patch-store", "gemma4_mtp.py"),),
        PATCHES,
    ),
    # As a run does it that mends models: the process keeps the old ones.
    Edit(
        "models replaced in the store",
        lambda record: f"mv {body(record)} {body(record)}.kept; cp -a {body(record)}.kept {body(record)}",
        lambda record: f"rm -r {body(record)}; mv {body(record)}.kept {body(record)}",
        (("models: mount-stale", "/models/body"),),
    ),
    replace(
        files(
            "another driver than the one that passed",
            {"/usr/bin/nvidia-smi": "sed -i 's/580.95.05/590.11.02/' /usr/bin/nvidia-smi"},
            ("host: driver-changed", "580.95.05", "590.11.02"),
        ),
        roles=HOST,
    ),
    edit(
        "a recipe that moved on",
        ":",
        ":",
        ("container: argument", "--max-num-seqs 8", "--max-num-seqs not set"),
        ("record: not-deployed", "serves what passed here last"),
        **{"max-num-seqs": 8},
    ),
    replace(edit("nothing any more", ":", ":"), roles=ALL),
)
