# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json: reads it, merges into it, and tells what the running engine must do to follow. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._common import json_text
from . import daemon_flags
from .engine import release

# dockerd applies these at SIGHUP, without stopping a container; there, each feature is a setting of its own
# (https://docs.docker.com/reference/cli/dockerd/#configuration-reload-behavior).
RELOADABLE = frozenset(
    {
        "allow-nondistributable-artifacts",
        "authorization-plugins",
        "debug",
        "default-runtime",
        "features.buildkit",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    }
)

# After a change of these, live-restore cannot find the containers again, so a restart stops them
# (https://docs.docker.com/engine/daemon/live-restore/#live-restore-upon-restart).
UNRESTORABLE = frozenset(
    {
        "bip",
        "bridge",
        "containerd",
        "data-root",
        "default-address-pools",
        "exec-root",
        "features.containerd-snapshotter",
        "fixed-cidr",
        "fixed-cidr-v6",
        "graph",
        "hosts",
        "iptables",
        "ipv6",
        "storage-driver",
        "storage-opts",
        "userns-remap",
    }
)

# moby daemon/nvidia_linux.go: the GPU driver is registered at start, if the hook is on PATH by then.
TOOLKIT_UNSEEN = "the engine looks for nvidia-container-toolkit only when it starts"

SNAPSHOTTER = "features.containerd-snapshotter"
STORE_UNSEEN = (
    "the engine chooses its image store only when it starts. It has then none of the images and containers of the other one: the image "
    "is pulled again before anything serves, and the other store stays on the disk until the engine returns to it or somebody removes it"
)
STORE_SINCE = (23, 0)
"""The first release that can keep its images in containerd. An older one accepts the feature and silently ignores it."""
GRAPH_DRIVERS = ("aufs", "devicemapper", "overlay2", "vfs")
"""Drivers that containerd does not have, or has under another name."""

NVIDIA_RUNTIME: dict[str, Any] = {"nvidia": {"path": "nvidia-container-runtime", "args": []}}


class DaemonConfigError(ValueError):
    """daemon.json cannot be read, or cannot be merged with what is wanted."""


def parse(text: str) -> dict[str, Any]:
    """The content of daemon.json, read as dockerd does: empty text is an empty configuration, and a byte order mark is ignored."""
    if not text.removeprefix("\ufeff").strip():
        return {}
    try:
        content = json_text.read(text, "daemon.json")
    except json_text.JsonError as error:
        raise DaemonConfigError(error.reason) from None
    if not isinstance(content, dict):
        raise DaemonConfigError(f"a JSON object is needed at the top, there is a {_kind(content)}")
    _check(content)
    return content


def _check(content: Mapping[str, Any]) -> None:
    """Check the values that this file reads: a list of texts, an object, or null, which counts as absent."""
    for key in ("registry-mirrors", "insecure-registries"):
        value = content.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise DaemonConfigError(f"{key}: a list of strings is needed")
    for key in ("runtimes", "features"):
        if not isinstance(content.get(key), (Mapping, type(None))):
            raise DaemonConfigError(f"{key}: an object is needed, there is a {_kind(content[key])}")


def render(content: Mapping[str, Any], like: str = "") -> str:
    """The text of daemon.json, indented as `like` is."""
    indented = re.search(r"\n([ \t]+)\S", like)
    return json.dumps(content, indent=indented.group(1) if indented else 4, ensure_ascii=False) + "\n"


def wanted(
    current: Mapping[str, Any],
    mirrors: Iterable[str],
    nvidia_runtime: bool,
    config: Mapping[str, Any],
    fleet_registry: str = "",
) -> dict[str, Any]:
    """daemon.json of a Spark: `current`, the mirrors, an nvidia runtime where there is none yet, and `config`.

    A mirror given as http:// needs no insecure-registries entry: the engine takes the scheme from the URL.

    :param fleet_registry: the mirror that the engine asks first, also before those of `current`
    """
    mirrored = merge({"registry-mirrors": list(mirrors)} if mirrors else {}, config)
    merged = merge(current, mirrored, {"runtimes": NVIDIA_RUNTIME} if nvidia_runtime else {})
    if fleet_registry:
        merged["registry-mirrors"] = _headed(merged.get("registry-mirrors") or [], fleet_registry)
    _check(merged)
    return merged


def merge(
    current: Mapping[str, Any], config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Merge `config` into `current`: objects deeply, lists united, other values replaced. Then `defaults` where absent.

    Keys of `current` keep their order and come first. Raises DaemonConfigError where an object or a list
    meets something else: guessing there would throw away what somebody wrote.
    """
    merged = _merge(current, config, "")
    return _fill(merged, defaults or {})


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Top-level keys whose value differs, in the order of `after`."""
    gone = [key for key in before if key not in after]
    return [key for key in after if key not in before or before[key] != after[key]] + gone


def unapplied_keys(content: Mapping[str, Any], engine: Mapping[str, Any]) -> list[str]:
    """Keys of daemon.json that the running engine shows differently (an earlier reload was lost).

    `engine` has registry_mirrors, insecure_registries, runtimes (lists) and live_restore (bool), each of
    them optional: only what the engine shows can be compared.
    """
    shown = {
        "registry-mirrors": engine.get("registry_mirrors"),
        "insecure-registries": engine.get("insecure_registries"),
        "runtimes": engine.get("runtimes"),
    }
    unapplied = []
    for key, seen in shown.items():
        if seen is None or content.get(key) is None:
            continue
        have = {_plain(item) for item in seen}
        if not {_plain(item) for item in content[key]} <= have:
            unapplied.append(key)
    live = engine.get("live_restore")
    if live is not None and content.get("live-restore") not in (None, live):
        unapplied.append("live-restore")
    return unapplied


def store_differs(content: Mapping[str, Any], engine: Mapping[str, Any]) -> list[str]:
    """Settings of daemon.json that name another image store than the engine's: it has not started with them yet."""
    settings = _settings(content)
    return [
        key
        for key, seen in _store(engine).items()
        if seen is not None and settings.get(key) is not None and settings[key] != seen
    ]


def unusable(content: Mapping[str, Any], engine: Mapping[str, Any]) -> str | None:
    """Why the engine would not start with daemon.json, or would never follow it; None if it would."""
    return daemon_flags.conflict(engine.get("flags") or [], content) or store_conflict(
        content, engine.get("version")
    )


def store_conflict(content: Mapping[str, Any], version: str | None) -> str | None:
    """Why no restart gives the engine the image store that daemon.json names; None if one does, or the engine is not known."""
    settings = _settings(content)
    if not settings.get(SNAPSHOTTER):
        return None
    if version and release(version) < STORE_SINCE:
        return f"{SNAPSHOTTER} needs Docker {STORE_SINCE[0]} or later, and this is {version}"
    if settings.get("storage-driver") in GRAPH_DRIVERS:
        return f"storage-driver {settings['storage-driver']} is none of containerd, which {SNAPSHOTTER} asks for; leave it out"
    return None


def redacted(value: Any) -> Any:
    """`value` without the user and password of any URL in it (proxies are written that way)."""
    if isinstance(value, str):
        return re.sub(r"://[^/@\s\"]+@", "://***@", value)
    if isinstance(value, Mapping):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item) for item in value]
    return value


@dataclass(frozen=True)
class Plan:
    """What daemon.json becomes, and what the running engine must do to follow."""

    content: dict[str, Any]
    changed: list[str]  # top-level keys of the file that change
    action: str  # none, reload or restart
    because: list[str]  # why it restarts
    stops: list[str]  # names of the containers that a restart would stop


def plan(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    running: bool,
    engine: Mapping[str, Any],
    containers: Iterable[Mapping[str, Any]] = (),
    restart_because: Iterable[str] = (),
) -> Plan:
    """What has to happen, and which running containers it would stop. `containers` have a name each."""
    changed = changed_keys(before, after)
    if not running:
        return Plan(dict(after), changed, "none", [], [])
    settings, has, store = _settings(after), _store(engine), store_differs(after, engine)
    differing = [
        key
        for key in changed_keys(_settings(before), settings)
        if key not in store and (key not in has or has[key] != settings.get(key))
    ]
    because = [f"{key} takes effect at a restart only" for key in differing if key not in RELOADABLE]
    because += [f"{key}: {STORE_UNSEEN}" for key in store]
    because += list(restart_because)
    if because:
        survives = bool(engine.get("live_restore")) and not UNRESTORABLE.intersection([*differing, *store])
        stops = [] if survives else [str(container["name"]) for container in containers]
        return Plan(dict(after), changed, "restart", because, stops)
    reload = changed or unapplied_keys(after, engine)
    return Plan(dict(after), changed, "reload" if reload else "none", [], [])


def refusal(plan: Plan, policy: str) -> str | None:
    """Why `policy` (auto, always, never) forbids the restart of `plan`; None if it does not."""
    if plan.action != "restart" or policy == "always":
        return None
    if policy == "never":
        return "restarts are off (never)"
    return f"it would stop {', '.join(plan.stops)}" if plan.stops else None


def instead(because: Iterable[str]) -> str:
    """What to do in place of a restart that is not allowed; `because` is the plan's."""
    if any(STORE_UNSEEN in reason for reason in because):
        return (
            "one host after another, stop the server (playbooks/stop.yml --limit) and run site.yml: the host serves again once the "
            "image is pulled; or take the key away"
        )
    return "stop the containers, set live-restore, or set prerequisites_restart_docker: always to stop them"


def needed(info: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the file needs on a host, and what the engine does to follow. Holds no value of the file: one may be a password.

    :param info: what `probes.gather` saw, not `redacted`
    :param asked: ``registry_mirrors``, ``fleet_registry``, ``toolkit``, ``daemon_config`` and ``restart_docker``
    :returns: ``error`` (why it cannot be merged, or None), ``keys``, ``action``, ``because`` and ``stops`` as `Plan`
        has them, ``refused`` (why it may not restart, or None)
    """
    nothing: dict[str, Any] = {
        "error": None,
        "keys": [],
        "action": "none",
        "because": [],
        "stops": [],
        "refused": None,
    }
    file = info["daemon_config"]
    if file is None or file["error"]:
        return {**nothing, "error": file["error"] if file else "cannot be read"}
    content, docker, toolkit = file["content"] or {}, info["docker"] or {}, info["toolkit"] or {}
    try:
        after = wanted(
            content,
            asked["registry_mirrors"],
            asked["toolkit"],
            asked["daemon_config"],
            asked["fleet_registry"],
        )
    except DaemonConfigError as error:
        return {**nothing, "error": str(error)}
    if why := unusable(after, docker):
        return {**nothing, "error": why}
    unseen = (
        asked["toolkit"] and docker.get("running") and (not toolkit.get("installed") or toolkit["unseen"])
    )
    planned = plan(
        content,
        after,
        running=bool(docker.get("running")),
        engine=docker,
        containers=docker.get("containers") or [],
        restart_because=[TOOLKIT_UNSEEN] if unseen else [],
    )
    return {
        "error": None,
        "keys": planned.changed,
        "action": planned.action,
        "because": planned.because,
        "stops": planned.stops,
        "refused": refusal(planned, asked["restart_docker"]),
    }


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """What is set, by its name: each key, and each one of `features`."""
    settings = {key: value for key, value in content.items() if key != "features"}
    return settings | {f"features.{name}": on for name, on in (content.get("features") or {}).items()}


def _store(engine: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that choose an image store, as the engine shows them; None where it shows none."""
    return {
        "storage-driver": engine.get("storage_driver"),
        SNAPSHOTTER: engine.get("containerd_snapshotter"),
    }


def _merge(current: Mapping[str, Any], config: Mapping[str, Any], where: str) -> dict[str, Any]:
    merged = dict(current)
    for key, value in config.items():
        path = f"{where}.{key}" if where else key
        if merged.get(key) is None:  # dockerd ignores null, too
            merged[key] = value
            continue
        there = merged[key]
        if isinstance(there, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(there, value, path)
        elif isinstance(there, list) and isinstance(value, list):
            merged[key] = _unite(there, value)
        elif isinstance(there, (Mapping, list)) or isinstance(value, (Mapping, list)):
            raise DaemonConfigError(f"{path}: wanted {_kind(value)}, the file has {_kind(there)}")
        else:
            merged[key] = value
    return merged


def _fill(current: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    filled = dict(current)
    for key, value in defaults.items():
        if filled.get(key) is None:
            filled[key] = value
        elif isinstance(filled[key], Mapping) and isinstance(value, Mapping):
            # One level is enough for runtimes: an entry that somebody wrote is complete.
            filled[key] = {**filled[key], **{name: v for name, v in value.items() if name not in filled[key]}}
    return filled


def _unite(there: list[Any], wanted: list[Any]) -> list[Any]:
    united = list(there)
    for item in wanted:
        if _plain(item) not in [_plain(known) for known in united]:
            united.append(item)
    return united


def _headed(there: list[Any], first: str) -> list[Any]:
    """The list with `first` at its head, spelled as in the list if it is there."""
    own = [item for item in there if _plain(item) == _plain(first)]
    return [*(own[:1] or [first]), *(item for item in there if item not in own)]


def _plain(item: Any) -> Any:
    """The item without the slash that the engine adds to a mirror's URL, for comparison."""
    return item.rstrip("/") if isinstance(item, str) else item


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (str, "string"), (Mapping, "object"), (list, "list")):
        if isinstance(value, kind):
            return name
    return "number"
