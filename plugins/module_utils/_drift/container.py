# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the wanted container with the one the engine has, option by option. Pure.

The wanted one has the option names of community.docker.docker_container, as plugin_utils/serving/record.py writes them. The
seen one is what the engine's API says of a container and of its image (`docker inspect`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._common import inspected, json_text
from .._common.secrets import is_secret, is_secret_option, mask
from .._host.unit import Unit
from .._vllm.argv import options
from .finding import Finding

SUBJECT = "container"
NOTHING = "not set"
REDEPLOY = "playbooks/site.yml makes it anew from the recipe; what is meant to stay belongs into the recipe or the inventory"
KIND_OF_ARGUMENT = {"served-model-name": "served-model", "speculative-config": "speculation"}
LABELS = "sparkfleet.vllm."
LIMITS = {
    "Memory": "memory, in bytes",
    "NanoCpus": "CPUs, in billionths",
    "CpuQuota": "CPU quota",
    "CpusetCpus": "CPUs by number",
    "PidsLimit": "processes",
}
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_NETWORK = {"default": "bridge", "": "bridge"}


def compare(
    wanted: Mapping[str, Any],
    seen: Mapping[str, Any],
    image: Mapping[str, Any] | None,
    wanted_image: Mapping[str, Any] | None,
    secrets: Mapping[str, str] | None = None,
    patches_known: bool = True,
) -> list[Finding]:
    """Every option in which the two differ, one finding each.

    :param wanted: the container of a serving record; ``labels``, if it has any, are compared too
    :param seen: the container, as the engine describes it
    :param image: the image it was made from; None when the engine no longer has it
    :param wanted_image: the image of the record; None when it is not on the host
    :param secrets: environment that the record does not hold, by name; compared, and never shown
    :param patches_known: False: which files are to be mounted is not known, so mounts and labels are not compared
    """
    # An engine may have no config of an image, or leave it out. Then nobody knows what the image brings.
    known = image if image and image.get("Config") is not None else None
    return [
        *_image(wanted["image"], seen, image, wanted_image),
        *_arguments(wanted["command"], seen["Config"].get("Cmd") or []),
        *_entrypoint(wanted.get("entrypoint"), seen, known),
        *_environment({**wanted["env"], **(secrets or {})}, seen, known),
        *(_mounts(wanted["volumes"], seen, known) if patches_known else ()),
        *_ports(wanted, seen),
        *_restart_policy(seen),
        *_security(wanted, seen, known),
        *_limits(wanted, seen),
        *_log(wanted, seen),
        *(_labels(wanted.get("labels") or {}, seen) if patches_known else ()),
    ]


def _finding(kind: str, expected: str, seen: str, do: str = REDEPLOY) -> Finding:
    return Finding(SUBJECT, kind, expected, seen, do)


def digests(image: Mapping[str, Any] | None) -> list[str]:
    """The digests under which a registry knows the image, `sha256:…`."""
    return sorted({name.partition("@")[2] for name in (image or {}).get("RepoDigests") or []})


def _image(
    wanted: str,
    seen: Mapping[str, Any],
    image: Mapping[str, Any] | None,
    wanted_image: Mapping[str, Any] | None,
) -> Iterator[Finding]:
    """Compares by content: a name can be moved to another image."""
    digest = wanted.partition("@")[2]
    if wanted_image is not None and wanted_image["Id"] == seen["Image"]:
        return
    if wanted_image is None and digest in digests(image):
        return
    known = ", ".join(digests(image)) or f"no digest of a registry, image id {seen['Image']}"
    yield _finding("image", digest, f"{known} (as {seen['Config'].get('Image')})")


# -- arguments


def _arguments(wanted: Iterable[str], seen: Iterable[str]) -> Iterator[Finding]:
    before, after = options(list(wanted)), options(list(seen))
    for name in dict.fromkeys([*before, *after]):
        expected, found = before.get(name), after.get(name)
        if expected == found:
            continue
        kind = KIND_OF_ARGUMENT.get(name, "argument")
        left, right = _json(expected), _json(found)
        if left is None or right is None:
            yield _finding(kind, _option(name, expected), _option(name, found))
            continue
        for key in dict.fromkeys([*left, *right]):
            if left.get(key) != right.get(key):
                yield _finding(kind, _member(name, key, left), _member(name, key, right))


def _json(values: tuple[str, ...] | None) -> dict[str, Any] | None:
    """The mapping in an option's only value, which is JSON text; None if it is not."""
    try:
        value = json_text.read(values[0], "the option") if values and len(values) == 1 else None
    except json_text.JsonError:
        return None
    return value if isinstance(value, dict) else None


def _option(name: str, values: tuple[str, ...] | None) -> str:
    shown = f"--{name}" if name else "the model"
    if values is None:
        return f"{shown} {NOTHING}"
    if is_secret_option(name):
        return f"{shown} ***"
    if values == ("false",):
        return f"--no-{name}"
    return mask(" ".join([shown, *values]), [])


def _member(name: str, key: str, values: Mapping[str, Any]) -> str:
    value = json.dumps(values[key], ensure_ascii=False) if key in values else NOTHING
    return f"--{name} {key}: {value}"


def _entrypoint(
    wanted: list[str] | None, seen: Mapping[str, Any], image: Mapping[str, Any] | None
) -> Iterator[Finding]:
    if wanted is None and image is None:
        return
    given = seen["Config"].get("Entrypoint") or []
    own = wanted or (image or {})["Config"].get("Entrypoint") or []
    if own != given:
        whose = "" if wanted else " (of the image)"
        yield _finding("entrypoint", f"{' '.join(own) or 'none'}{whose}", " ".join(given) or "none")


# -- environment


def _pairs(entries: Iterable[str] | None) -> dict[str, str]:
    return {name: value for name, _sep, value in (entry.partition("=") for entry in entries or [])}


def _environment(
    wanted: Mapping[str, str], seen: Mapping[str, Any], image: Mapping[str, Any] | None
) -> Iterator[Finding]:
    brought = _pairs(((image or {}).get("Config") or {}).get("Env"))
    expected = {**brought, **wanted}
    found = _pairs(seen["Config"].get("Env"))
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            # Another image brings other variables. Without the image nobody knows which.
            if image is None and name not in wanted:
                continue
            yield _finding("environment", _variable(name, expected), _variable(name, found))


def _variable(name: str, environment: Mapping[str, str]) -> str:
    if name not in environment:
        return f"{name} {NOTHING}"
    if is_secret(name):
        return f"{name} set, its value is not shown"
    return mask(f"{name}={environment[name]}", [])


# -- mounts and ports


def _mounts(
    wanted: Iterable[str], seen: Mapping[str, Any], image: Mapping[str, Any] | None
) -> Iterator[Finding]:
    expected = {}
    for volume in wanted:
        source, target, mode = volume.split(":")
        expected[target] = (source, "read-only" if mode == "ro" else "writable")
    declared = ((image or {}).get("Config") or {}).get("Volumes") or {}
    found = {
        mount["Destination"]: (
            mount.get("Source") or mount.get("Name") or "",
            "writable" if mount.get("RW") else "read-only",
        )
        for mount in seen.get("Mounts") or []
        # An image can declare volumes. Without the image nobody knows which.
        if not (mount.get("Type") == "volume" and (image is None or mount["Destination"] in declared))
    }
    for target in sorted({*expected, *found}):
        if expected.get(target) != found.get(target):
            yield _finding("mount", _mount(target, expected), _mount(target, found))


def _mount(target: str, mounts: Mapping[str, tuple[str, str]]) -> str:
    if target not in mounts:
        return f"nothing mounted at {target}"
    source, mode = mounts[target]
    return f"{source} at {target}, {mode}"


def _ports(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> Iterator[Finding]:
    expected = sorted(wanted.get("published_ports") or [])
    bound = seen["HostConfig"].get("PortBindings") or {}
    found = sorted(
        f"{_bracketed(binding.get('HostIp') or '0.0.0.0')}:{binding.get('HostPort')}:{port.partition('/')[0]}"  # noqa: S104
        for port, bindings in bound.items()
        for binding in bindings or []
    )
    if seen["HostConfig"].get("PublishAllPorts"):
        found.append("all that the image exposes")
    if expected != found:
        yield _finding("port", ", ".join(expected) or "no published port", ", ".join(found) or "none")


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


# -- how it runs


def _restart_policy(seen: Mapping[str, Any]) -> Iterator[Finding]:
    """The unit restarts a server. If the engine did so too, each would miscount the restarts."""
    found = (seen["HostConfig"].get("RestartPolicy") or {}).get("Name") or "no"
    if found != "no":
        yield _finding("restart-policy", "no: its unit restarts it", found)


def _security(
    wanted: Mapping[str, Any], seen: Mapping[str, Any], image: Mapping[str, Any] | None
) -> Iterator[Finding]:
    host = seen["HostConfig"]
    pairs: dict[str, tuple[Any, Any]] = {
        "privileged": (bool(wanted.get("privileged")), bool(host.get("Privileged"))),
        "dropped capabilities": (_capabilities(wanted.get("cap_drop")), _capabilities(host.get("CapDrop"))),
        "added capabilities": (_capabilities(wanted.get("capabilities")), _capabilities(host.get("CapAdd"))),
        "security options": (_labels_off(wanted.get("security_opts")), _labels_off(host.get("SecurityOpt"))),
        "network": (_network(wanted["network_mode"]), _network(host.get("NetworkMode") or "")),
        "IPC": (wanted["ipc_mode"], host.get("IpcMode") or "private"),
        "PID namespace": (wanted.get("pid_mode") or "", host.get("PidMode") or ""),
        "devices": (_devices(wanted.get("devices")), _devices(host.get("Devices"))),
    }
    if image is not None:
        pairs["user"] = (image["Config"].get("User") or "", seen["Config"].get("User") or "")
    # The engine drops these for a privileged container.
    if pairs["privileged"] == (True, True):
        del pairs["security options"], pairs["devices"]
    for name, (expected, found) in pairs.items():
        if expected != found:
            yield _finding("security", f"{name}: {_shown(expected)}", f"{name}: {_shown(found)}")
    expected_gpu, found_gpu = bool(wanted.get("device_requests")), has_gpu(host)
    if expected_gpu != found_gpu:
        yield _finding("gpu", "all GPUs" if expected_gpu else "no GPU", "GPUs" if found_gpu else "no GPU")
    if bool(wanted.get("auto_remove")) != bool(host.get("AutoRemove")):
        yield _finding(
            "auto-remove", _shown(bool(wanted.get("auto_remove"))), _shown(bool(host.get("AutoRemove")))
        )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) and value else str(value or "none")


def _capabilities(names: Iterable[str] | None) -> list[str]:
    return sorted(name.upper().removeprefix("CAP_") for name in names or [])


def _labels_off(options: Iterable[str] | None) -> list[str]:
    """The options without `label=disable`, which an engine adds by itself where there is no SELinux to label with."""
    return sorted(option for option in options or [] if option != "label=disable")


def _network(mode: str) -> str:
    return _NETWORK.get(mode, mode)


def _devices(devices: Iterable[Any] | None) -> list[str]:
    return sorted(
        inspected.device(device) if isinstance(device, Mapping) else str(device) for device in devices or []
    )


def has_gpu(host: Mapping[str, Any]) -> bool:
    """Whether a container was given a GPU, by request, by CDI or by runtime; `host` is its HostConfig."""
    requests = host.get("DeviceRequests") or []
    asked = any("gpu" in names for request in requests for names in request.get("Capabilities") or [])
    named = any("gpu" in name for request in requests for name in request.get("DeviceIDs") or [])
    return asked or named or host.get("Runtime") == "nvidia"


def _limits(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> Iterator[Finding]:
    host = seen["HostConfig"]
    for name, words in LIMITS.items():
        # 0, -1 and null are the engine's ways to say none.
        if host.get(name) not in (None, 0, -1, "", "0"):
            yield _finding("limit", f"no limit: {words}", f"{words}: {host[name]}")
    expected, found = _ulimits(wanted.get("ulimits")), _ulimits(host.get("Ulimits"))
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            left, right = expected.get(name, NOTHING), found.get(name, NOTHING)
            yield _finding("limit", f"ulimit {name}: {left}", f"ulimit {name}: {right}")
    if wanted.get("shm_size"):
        bytes_ = size(wanted["shm_size"])
        if host.get("ShmSize") != bytes_:
            yield _finding(
                "limit", f"shared memory: {bytes_} bytes", f"shared memory: {host.get('ShmSize')} bytes"
            )


def _ulimits(limits: Iterable[Any] | None) -> dict[str, str]:
    """Soft and hard limit by name, from options of docker_container or from the engine's answer."""
    texts = (inspected.ulimit(limit) if isinstance(limit, Mapping) else limit for limit in limits or [])
    return {name: limit for name, _sep, limit in (text.partition(":") for text in texts)}


def _log(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> Iterator[Finding]:
    """A record that leaves logging to the engine wants nothing here."""
    if "log_driver" not in wanted:
        return
    found = seen["HostConfig"].get("LogConfig") or {}
    expected = _logged(wanted["log_driver"], wanted.get("log_options") or {})
    given = _logged(found.get("Type") or "", found.get("Config") or {})
    if expected != given:
        yield _finding("log", expected, given)


def _logged(driver: str, options: Mapping[str, str]) -> str:
    return mask(" ".join([driver or NOTHING, *(f"{name}={options[name]}" for name in sorted(options))]), [])


def size(text: str | int) -> int:
    """Bytes of Docker's `512m`, `8g` or a plain number.

    >>> size("512m")
    536870912
    """
    written = str(text).strip().lower().removesuffix("b") or "0"
    factor = _UNITS.get(written[-1], 1)
    return int(float(written.rstrip("bkmg")) * factor)


def _labels(wanted: Mapping[str, str], seen: Mapping[str, Any]) -> Iterator[Finding]:
    found = {
        name: value for name, value in (seen["Config"].get("Labels") or {}).items() if name.startswith(LABELS)
    }
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            yield _finding(
                "label", f"{name}={wanted.get(name, NOTHING)}", f"{name}={found.get(name, NOTHING)}"
            )


# -- whether it runs


def life(data: Mapping[str, Any] | None, name: str, unit: Unit) -> list[Finding]:
    """What keeps a container from serving, and what it went through. `unit`: the one that keeps it running."""
    if data is None:
        return [
            Finding(
                SUBJECT,
                "container-missing",
                f"container {name}",
                "the engine has none of that name",
                REDEPLOY,
            )
        ]
    state, status = data["State"], data["State"]["Status"]
    restarts = data.get("RestartCount") or unit.restarts
    if status == "restarting" or (status != "running" and unit.active == "activating"):
        seen = f"restarting, {restarts} times so far, exit code {state.get('ExitCode')}"
        return [
            Finding(
                SUBJECT, "restarting", f"{name} runs", seen, f"docker logs --tail 50 {name} says why it ends"
            )
        ]
    if status != "running":
        seen = f"{status} since {state.get('FinishedAt')}, exit code {state.get('ExitCode')}"
        if state.get("OOMKilled"):
            seen += ", killed for want of memory"
        if unit.gave_up:
            seen += "; its unit has started it too often within an hour, and gave up"
        kind = "paused" if status == "paused" else "stopped"
        do = (
            f"docker unpause {name}"
            if kind == "paused"
            else f"playbooks/site.yml, or systemctl restart {name}"
        )
        return [Finding(SUBJECT, kind, f"{name} runs", seen, do)]
    if restarts:
        seen = f"it has been restarted {restarts} times, last at {state.get('StartedAt')}"
        do = f"docker logs {name} says what it died of"
        return [Finding(SUBJECT, "restarted", f"{name} has run since it was started", seen, do, "warning")]
    return []
