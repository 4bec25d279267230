# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What serves on a Spark, as data: the container that recipe, lock and role inputs add up to.

The role C(vllm_serve) starts this mapping, C(state.json) records it and a diff shows it. It never holds a
secret: only the task that starts the container adds the API key to the environment.
"""

from __future__ import annotations

import ipaddress
import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...module_utils._common.paths import cache_root, snapshot_path, unit_path
from ...module_utils._recipe import measured
from ...module_utils._recipe.document import dotted
from ...module_utils._recipe.recipe import (
    caches_complaint,
    devices_complaint,
    entrypoint_complaint,
    host_environment_complaint,
    rule_problems,
    serve_problems,
    topology_problems,
)
from ...module_utils._recipe.rules import (
    HIDDEN,
    argument_problems,
    deeper,
    depth,
    refused_image,
    unit_problems,
    whole_topology,
)
from ...module_utils._unit.install import MOUNT, RUN
from ...module_utils._vllm.argv import options, render, shutdown_timeout
from ...module_utils._vllm.caches import targets
from ..unit import derive
from . import caches
from .inputs import Inputs

SECURITY = ("least", "fabric", "recipe")
LOOPBACK = "127.0.0.1"
PORT = "vllm_serve_extra_arguments.port: nothing would be published there; set vllm_serve_port"


INSTEAD = "sparkfleet.vllm.instead"


class SpecError(ValueError):
    """Recipe, lock and role inputs do not add up to a container."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` on top, nested mappings merged; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        mine = merged.get(key)
        merged[key] = (
            merge(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
        )
    return merged


def mounted_models(
    models: Mapping[str, Mapping[str, Any]], locked: Mapping[str, Mapping[str, Any]], store: str
) -> dict[str, dict[str, str]]:
    """The place of each model on the host and in the container.

    :param models: by role, each with its ``mount``; one without a ``path`` lies at its commit's place in the store
    :param locked: those of the lock
    :returns: ``{role: {path: snapshot directory on the host, mount: directory in the container}}``
    :raises SpecError: a model without a path is not in the lock
    """
    mounted = {}
    for role, model in models.items():
        path = model.get("path")
        if path is None:
            if role not in locked:
                raise SpecError(f"models.{role}: in the recipe, not in the lock; run playbooks/lock.yml")
            path = snapshot_path(store, locked[role]["repository"], locked[role]["commit"])
        mounted[role] = {"path": path, "mount": model["mount"]}
    return mounted


def _volumes(
    models: Mapping[str, Mapping[str, str]],
    patches: Sequence[Mapping[str, Any]],
    mounts: Sequence[Mapping[str, str]],
    kept: Sequence[caches.Cache],
) -> list[str]:
    binds = [f"{model['path']}:{model['mount']}:ro" for model in models.values()]
    binds += [f"{patch['host_path']}:{patch['target']}:ro" for patch in patches if patch["mount"]]
    binds += [f"{mount['path']}:{mount['mount']}:ro" for mount in mounts]
    return [*binds, *(f"{cache.path}:{cache.target}:rw" for cache in kept)]


def _caches(inputs: Inputs) -> list[caches.Cache]:
    return caches.of_image(inputs["image"], inputs["caches"], inputs["store"])


def _mounts(inputs: Inputs) -> list[dict[str, str]]:
    """Further mounts, with their places on the host: ``{path, mount}``."""
    return [
        {"path": posixpath.join(inputs["store"], mount["path"]), "mount": mount["mount"]}
        for mount in inputs["mounts"]
    ]


def _address(bind: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(bind)
    except ValueError:
        raise SpecError(
            f"vllm_serve_bind: expected an IP address of the Spark, seen {bind!r:.60}; set it, or spark_address"
        ) from None


def _published(bind: str, port: int) -> list[str]:
    """Also on loopback, where the gate and the watch of the Spark itself ask."""
    address = _address(bind)
    addresses = [LOOPBACK] if not (address.is_loopback or address.is_unspecified) else []
    return [f"{at}:{port}:{port}" for at in [*addresses, f"[{bind}]" if address.version == 6 else bind]]


def _base_url(inputs: Inputs) -> str:
    """Where the Spark itself asks its server; empty for a worker of a unit, which has no API.

    On the host's network a server listens at one address, and so not on loopback as well.
    """
    if _is_worker(inputs):
        return ""
    at = LOOPBACK
    if inputs["security"] == "fabric":
        address = _address(inputs["bind"])
        at = at if address.is_unspecified else f"[{address}]" if address.version == 6 else str(address)
    return f"http://{at}:{inputs['port']}"


def _is_worker(inputs: Inputs) -> bool:
    return bool(inputs["unit"]) and inputs["unit"]["rank"] > 0


def _security(security: str, *, bind: str, port: int, shm_size: str, ipc: str) -> dict[str, Any]:
    if security == "fabric":
        return {
            "privileged": False,
            "network_mode": "host",
            "ipc_mode": ipc,
            # That of the host has its own size.
            **({"shm_size": shm_size} if ipc == "private" else {}),
            "cap_drop": ["ALL"],
            "capabilities": ["IPC_LOCK"],
            "security_opts": ["no-new-privileges"],
            "auto_remove": False,
        }
    if security == "recipe":
        return {
            "privileged": True,
            "network_mode": "host",
            "ipc_mode": "host",
            "auto_remove": True,
        }
    if security == "least":
        return {
            "privileged": False,
            "network_mode": "bridge",
            "published_ports": _published(bind, port),
            "ipc_mode": "private",
            "shm_size": shm_size,
            "cap_drop": ["ALL"],
            "security_opts": ["no-new-privileges"],
            "auto_remove": False,
        }
    raise SpecError(f"vllm_serve_security: expected one of {', '.join(SECURITY)}, got {security!r}")


def _log(driver: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Where the container's log goes. Without a driver the engine's own settings decide, and nothing is recorded of it."""
    return {"log_driver": driver, "log_options": {k: str(v) for k, v in options.items()}} if driver else {}


def _instead(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Options that replace what the image or the engine brings, and a label that names them.

    An option that is no longer asked for is left out, and docker_container does not compare such options. The label shows the change.

    :param asked: options of docker_container; an empty one is not asked for
    """
    given = {name: value for name, value in asked.items() if value}
    return {**given, "labels": {INSTEAD: json.dumps(given, sort_keys=True)} if given else {}}


def _arguments(inputs: Inputs) -> dict[str, Any]:
    """The serve arguments of this host."""
    given = merge(inputs["arguments"], inputs["extra_arguments"])
    at = "0.0.0.0"  # noqa: S104  the published address is what limits access
    if inputs["security"] == "fabric":
        # On the host's network this is what limits access, so no argument replaces it.
        at = str(_address(inputs["bind"]))
        given = {name: value for name, value in given.items() if name != "host"}
    if not inputs["unit"]:
        return merge({"host": at, "port": inputs["port"]}, given)
    own = derive.arguments(inputs["unit"], whole_topology(inputs["topology"]), inputs["master_port"])
    if _is_worker(inputs):
        served = {name: value for name, value in given.items() if name != "host"}
    else:
        served = merge({"host": at, "port": inputs["port"]}, given)
    usual = {name: value for name, value in derive.ARGUMENTS.items() if name not in given}
    return {**served, **usual, **own}


def _entrypoint(inputs: Inputs, command: Sequence[str]) -> Sequence[str]:
    """What starts the container, if it is not the image's own."""
    if not inputs["unit"]:
        return inputs["entrypoint"]
    seconds = derive.STOP_WITHIN + shutdown_timeout(command)
    return derive.supervisor_command(
        inputs["unit"], inputs["entrypoint"], port=inputs["unit_port"], stop_within=seconds
    )


def _unit_volumes(inputs: Inputs) -> list[str]:
    """What the program that runs the server of a unit's member needs: itself, and the folder with key and status."""
    if not inputs["unit"]:
        return []
    folder = unit_path(inputs["state_dir"])
    return [f"{inputs['unit']['supervisor']}:{MOUNT}:ro", f"{folder}:{RUN}:rw"]


def _ulimits(inputs: Inputs) -> dict[str, int]:
    """RDMA locks the memory that it uses."""
    return {**({"memlock": -1} if inputs["security"] == "fabric" else {}), **inputs["ulimits"]}


def container_spec(inputs: Inputs) -> dict[str, Any]:
    """The container of one Spark, in the option names of community.docker.docker_container.

    :param inputs: with the models as :func:`mounted_models` gives them
    :raises SpecError: no body, an image that is not pinned, an unknown security profile, an API key where it would
        be recorded
    :raises ArgumentsError: an argument that cannot be rendered; call :func:`serving_refusals` first for a better message
    """
    models = inputs["models"]
    if "body" not in models:
        raise SpecError("models.body: expected the model to serve; load a recipe or set vllm_serve_models")
    if "@sha256:" not in inputs["image"]:
        raise SpecError(
            f"vllm_serve_image: expected an image by digest (name@sha256:…), got {inputs['image']!r}"
        )
    if "VLLM_API_KEY" in inputs["environment"]:
        raise SpecError(
            "environment.VLLM_API_KEY: the environment is shown in diffs and recorded; set vllm_serve_api_key, "
            "which is not"
        )
    if hidden := sorted(name for name in inputs["environment"] if re.search(HIDDEN, name.upper())):
        raise SpecError(
            f"environment.{hidden[0]}: the environment is shown in diffs and recorded; a server needs no secret but its API key, "
            "since its models are files here"
        )
    nodes = whole_topology(inputs["topology"])["nodes"]
    if nodes > 1 and not inputs["unit"]:
        raise SpecError(
            f"vllm_serve_unit: expected the unit of the host, one of {nodes} Sparks, seen none; the entry points of the role vllm_serve "
            "find it (spark_member)"
        )
    command = [models["body"]["mount"], *render(_arguments(inputs))]
    return {
        "name": inputs["name"],
        "image": inputs["image"],
        "command": command,
        "env": {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        | (derive.environment(inputs["unit"], inputs["devices"]) if inputs["unit"] else {})
        | {name: inputs["host_facts"][fact] for name, fact in inputs["host_environment"].items()}
        | {k: str(v) for k, v in inputs["environment"].items()},
        "volumes": [
            *_volumes(models, inputs["patches"], _mounts(inputs), _caches(inputs)),
            *_unit_volumes(inputs),
        ],
        "device_requests": [{"driver": "nvidia", "count": -1, "capabilities": [["gpu"]]}]
        if inputs["gpus"]
        else [],
        **_security(
            inputs["security"],
            bind=inputs["bind"],
            port=inputs["port"],
            shm_size=inputs["shm_size"],
            ipc=inputs["ipc"],
        ),
        **_log(inputs["log_driver"], inputs["log_options"]),
        **_instead(
            {
                "entrypoint": _entrypoint(inputs, command),
                "devices": [f"{device}:{device}:rw" for device in inputs["devices"]],
                "ulimits": [f"{name}:{limit}:{limit}" for name, limit in _ulimits(inputs).items()],
            }
        ),
    }


def serving_record(inputs: Inputs) -> dict[str, Any]:
    """What a Spark serves and how it passes the gate: enough to start the very same again, and to judge it again.

    The role makes the container of it, ``state.json`` records it after the gate, and a rollback starts what is recorded.

    :returns: ``{recipe, container, models, files, mounts: [{path on the host, mount}], directories: as
        :func:`caches.directories` gives them, gate: {served_model, base_url, speculation (or None), acceptance_floor, minimum_drafts},
        memory: {fraction, minimum_bytes (or None)}}``; no secret. A member of a unit also has ``unit: {name, rank, nodes, members:
        [{host, address}] in order of rank, port, master_port}``. Its head passes the gate for all: a worker has no C(base_url), and no
        drafts are expected of it
    :raises SpecError: as :func:`container_spec`, and with the texts of :func:`serving_refusals`
    """
    if refused := serving_refusals(inputs):
        raise SpecError("\n".join(refused))
    store = inputs["store"]
    models = mounted_models(inputs["models"], inputs.get("locked_models") or {}, store)
    arguments = merge(inputs["arguments"], inputs["extra_arguments"])
    names = arguments.get("served-model-name") or (models.get("body") or {}).get("mount")
    name = names[0] if isinstance(names, list) else names
    if "body" in models and not isinstance(name, str):
        raise SpecError(
            f"served-model-name: expected a name, or a list of names, seen {names!r:.60}; put it in quotes"
        )
    return {
        "recipe": inputs["recipe"],
        "container": container_spec({**inputs, "models": models}),
        "models": models,
        "files": gate_files(inputs["patches"]),
        "mounts": _mounts(inputs),
        "directories": caches.directories(_caches(inputs), store),
        "gate": {
            "served_model": name,
            "base_url": _base_url(inputs),
            "speculation": arguments.get("speculative-config"),
            "acceptance_floor": 0.0 if _is_worker(inputs) else inputs["acceptance_floor"],
            "minimum_drafts": 0 if _is_worker(inputs) else inputs["minimum_drafts"],
        },
        "memory": {"fraction": inputs["memory_fraction"], "minimum_bytes": inputs["memory_minimum_bytes"]},
        **_unit(inputs),
    }


def _unit(inputs: Inputs) -> dict[str, Any]:
    """The part of the record that only a member of a unit has."""
    if not (unit := inputs["unit"]):
        return {}
    return {
        "unit": {
            "name": unit["name"],
            "rank": unit["rank"],
            "nodes": unit["nodes"],
            "members": [{"host": one["host"], "address": one["address"]} for one in unit["members"]],
            "port": inputs["unit_port"],
            "master_port": inputs["master_port"],
        }
    }


SPECULATIVE = "--speculative-config"


def variant(serving: Mapping[str, Any], speculation: Mapping[str, Any] | None) -> dict[str, Any]:
    """A record that differs from `serving` in its speculation alone: the draft and its mount stay.

    :param speculation: a whole speculative config, None for off
    :raises SpecError: the server has stages, with which vLLM does not speculate
    """
    if speculation == serving["gate"]["speculation"]:
        return dict(serving)
    command = list(serving["container"]["command"])
    stages = options(command).get("pipeline-parallel-size", ("1",))
    if speculation is not None and stages != ("1",):
        raise SpecError(
            f"expected no speculation with {stages[-1]} stages (topology.pipeline_parallel), which vLLM does not start, seen "
            f"{speculation}; tune a recipe with tensor_parallel alone"
        )
    at = command.index(SPECULATIVE) if SPECULATIVE in command else len(command)
    command[at : at + 2] = [] if speculation is None else render({"speculative-config": speculation})
    return {
        **serving,
        "container": {**serving["container"], "command": command},
        "gate": {**serving["gate"], **_expected(serving, speculation)},
    }


def _expected(serving: Mapping[str, Any], speculation: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the gate expects of a variant: no drafts without speculation, or of a worker, and some with it."""
    gate = serving["gate"]
    if speculation is None or serving.get("unit", {}).get("rank"):
        return {"speculation": speculation, "acceptance_floor": 0.0, "minimum_drafts": 0}
    return {"speculation": dict(speculation), "minimum_drafts": gate.get("minimum_drafts") or measured.DRAFTS}


def stop_timeout(serving: Mapping[str, Any], seconds: int) -> int:
    """Seconds that the server of a record has to stop before it is killed.

    It is no part of the record: a record of a former release has it as well, and another timeout makes no other server.

    :param serving: a record, empty where nothing is on record
    :param seconds: those of a server that begins to stop at once
    """
    return seconds + (shutdown_timeout(serving["container"]["command"]) if serving else 0)


def serving_refusals(inputs: Inputs) -> list[str]:
    """What speaks against the server that inventory and recipe ask for together: arguments that cannot be rendered or belong
    elsewhere, speculation that did not pay, an image that cannot serve it.

    The recipe's own values were judged when its file was read. The inventory's, and the combination, are judged only here.

    :raises SpecError: `published`, `refused` or `topology` does not have the form of a recipe's
    """
    problems = rule_problems(inputs["published"], inputs["refused"], "vllm_serve")
    problems += topology_problems(inputs["topology"], "vllm_serve") if inputs["topology"] else []
    if problems:
        raise SpecError("\n".join(map(str, problems)))
    extra = {name: value for name, value in inputs["extra_arguments"].items() if name != "port"}
    arguments = merge(inputs["arguments"], extra)
    found = [
        None if extra == inputs["extra_arguments"] else PORT,
        *map(str, argument_problems(arguments, "serve arguments")),
        refused_image(inputs["refused"], inputs["image"]),
        _named("vllm_serve_entrypoint", inputs["entrypoint"], entrypoint_complaint),
        _named("vllm_serve_caches", inputs["caches"], caches_complaint),
        _named("vllm_serve_host_environment", inputs["host_environment"], host_environment_complaint)
        or _unknown_fact(inputs["host_environment"], inputs["host_facts"]),
        _named("vllm_serve_devices", inputs["devices"], devices_complaint),
        _not_allowed(inputs["devices"], inputs["allowed_devices"]),
        *map(str, wrong := serve_problems(inputs["mounts"], inputs["ulimits"], "vllm_serve")),
        *([] if wrong else [*_not_mountable(inputs), *_crowded(inputs)]),
        _disagreement(arguments, inputs["acceptance_floor"], inputs["minimum_drafts"]),
        *_unit_refusals(inputs, arguments),
    ]
    if not inputs["allow_deeper"] and depth(arguments) > inputs["measured_depth"]:
        do = "set vllm_serve_allow_deeper: true to go deeper all the same"
        found.append(deeper(arguments, inputs["published"], do))
    return [refusal for refusal in found if refusal]


def _unit_refusals(inputs: Inputs, arguments: Mapping[str, Any]) -> list[str]:
    """Why one model cannot be served over several Sparks by these inputs."""
    problems = unit_problems(inputs["topology"], arguments, inputs["entrypoint"])
    told = [f"{dotted(path)}: {message}" for path, message in problems]
    nodes = whole_topology(inputs["topology"])["nodes"]
    if nodes == 1:
        return told
    if inputs["security"] == "least":
        told.append(
            f"expected vllm_serve_security: fabric for a unit of {nodes} Sparks, seen least: vLLM draws the ports by which its processes "
            "meet, so none can be published, and the members need the host's network; take vllm_serve_security away"
        )
    own = {*inputs["environment"], *inputs["host_environment"]} & derive.OWN_VARIABLES
    if own:
        told.append(
            f"expected no {', '.join(sorted(own))} in the environment of a unit (serve.environment, serve.host_environment, "
            "vllm_serve_extra_environment), since each member has its own, seen it there; take it away: spark_unit_interface gives it"
        )
    return told


def _named(name: str, value: Any, complaint: Callable[[Any], str | None]) -> str | None:
    """The problem of an input that a recipe has a key for; an empty input asks for nothing."""
    wrong = complaint(value) if value else None
    return wrong and f"{name}: {wrong}"


def _unknown_fact(wanted: Mapping[str, str], facts: Mapping[str, str]) -> str | None:
    for name, fact in wanted.items():
        if not facts[fact]:
            return (
                f"expected the {fact} of the host in the fleet, which {name} is (serve.host_environment), seen none; "
                f"set spark_{fact} in the inventory"
            )
    return None


def _not_allowed(devices: Sequence[str], allowed: Sequence[str]) -> str | None:
    """Devices that the inventory does not allow. A recipe may be a stranger's, and access to a disk is access to the whole host."""
    folders = tuple(f"{path}/" for path in allowed)
    if strange := [device for device in devices if not f"{device}/".startswith(folders)]:
        return (
            f"expected devices among {', '.join(allowed) or 'none'} (vllm_serve_allowed_devices), seen {', '.join(strange)}; a device "
            "may give the whole host away: add it there if you trust the recipe with it, or take it from serve.devices"
        )
    return None


def _not_mountable(inputs: Inputs) -> list[str]:
    """Why what a recipe wants mounted may not be. What other images left in their caches is nobody else's to read, or to run."""
    store, cache = inputs["store"], cache_root(inputs["store"])
    told = []
    for mount in _mounts(inputs):
        path = mount["path"]
        if _within(path, cache) or _within(cache, path):
            told.append(
                f"expected a mount of something else than {cache}, where servers write, seen {path}; move it"
            )
        elif not any(_within(path, folder) for folder in (store, *inputs["allowed_paths"])):
            allowed = ", ".join((store, *inputs["allowed_paths"]))
            told.append(
                f"expected mounts of what lies below {allowed} (vllm_serve_allowed_paths), seen {path}; add a directory there if you "
                "trust the recipe with it, or take it from serve.mounts"
            )
    return told


def _crowded(inputs: Mapping[str, Any]) -> list[str]:
    """Mounts in a place that is taken, or around one. The engine makes no mount point in what is read-only, and says so when it starts
    the container: the old server is gone by then. Where a patch goes, a recipe alone need not know."""
    taken = [model["mount"] for model in inputs["models"].values()]
    taken += [patch["target"] for patch in inputs["patches"] if patch["mount"]]
    taken += targets(inputs["caches"]).values()
    taken += [MOUNT] if whole_topology(inputs["topology"])["nodes"] > 1 else []
    told = []
    for mount in (one["mount"] for one in inputs["mounts"]):
        if beside := next((place for place in taken if _within(mount, place) or _within(place, mount)), None):
            told.append(
                f"expected a place of its own for each mount (serve.mounts), seen {mount} beside {beside}; move it"
            )
        taken.append(mount)
    return told


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def weakened(inputs: Inputs) -> list[str]:
    """What keeps the container from having the least rights, one text for each thing that somebody asked for."""
    told = [
        f"the container gets {device} of the host and uses that hardware directly"
        for device in inputs["devices"]
    ]
    if inputs["security"] == "fabric":
        told.insert(0, "the container uses the network of the host, with every port that is free there")
    if "memlock" in (limits := _ulimits(inputs)):
        bytes_ = limits["memlock"]
        much = "without limit" if bytes_ < 0 else f"up to {bytes_} bytes"
        told.append(f"the container may lock memory {much}, and nothing else on the host gets what it locks")
    return told


def _disagreement(arguments: Mapping[str, Any], floor: float, drafts: int) -> str | None:
    """Why speculation and its expectations do not fit: a gate that expects nothing passes a server without drafts."""
    speculates = bool(arguments.get("speculative-config"))
    if speculates and drafts < 1:
        return (
            f"expected vllm_serve_minimum_drafts of at least 1 with a speculative-config, seen {drafts}; set it, or take the "
            "speculative-config away"
        )
    if not speculates and (floor > 0 or drafts > 0):
        return (
            f"expected a speculative-config, since {drafts} drafts and {floor:.0%} of them accepted are expected, seen serve "
            "arguments without one; add it (vllm_serve_extra_arguments adds to the recipe's arguments, vllm_serve_arguments "
            "replaces them), or set vllm_serve_minimum_drafts and vllm_serve_acceptance_floor to 0"
        )
    return None


def gate_files(patches: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The files that the gate looks for inside the container, from placed patches."""
    return [
        {"path": patch["target"], "md5": patch["md5"], "sha256": patch["sha256"]}
        | ({"host_path": patch["host_path"]} if patch["mount"] else {})
        for patch in patches
    ]


def gate_evidence(gate: Mapping[str, Any], host: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a gate result that is kept beside the spec that passed, with the versions of the host."""
    kept = (
        "drafts",
        "accepted_per_position",
        "acceptance_rate",
        "mean_acceptance_length",
        "decode_tokens_per_second",
    )
    return {name: gate[name] for name in kept if name in gate} | {"host": dict(host)}
