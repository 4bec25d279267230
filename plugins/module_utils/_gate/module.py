# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that ask a running vLLM server share: their options, the checks that an argument spec cannot express, and
how they run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from .._common.progress import Progress
from .._vllm import client, metrics
from . import container as gate_container
from . import diagnosis, docker_container, observed

ARGUMENT_SPEC: dict[str, Any] = {
    "base_url": {"type": "str", "default": "http://127.0.0.1:8000"},
    "served_model": {"type": "str", "required": True},
    "api_key": {"type": "str", "no_log": True},
    "speculation": {"type": "dict"},
    "max_tokens": {"type": "int", "default": 256, "no_log": False},
    "ready_timeout": {"type": "int", "default": 1200},
    "idle_timeout": {"type": "int", "default": 300},
    "foreign_traffic": {"type": "str", "choices": ["fail", "warn"], "default": "fail"},
}
BOUNDS: dict[str, tuple[float, float]] = {
    "max_tokens": (200, 1_000_000),
    "ready_timeout": (1, 86_400),
    "idle_timeout": (1, 86_400),
    "measure_timeout": (1, 86_400),
}
CONCURRENCY = (1, 64)


def need_libraries(module: AnsibleModule) -> None:
    """Fail when a library that this call needs is missing."""
    libraries = [
        ("requests", client.REQUESTS_IMPORT_ERROR),
        ("prometheus_client", metrics.PROMETHEUS_IMPORT_ERROR),
    ]
    if module.params["container"]:
        libraries.append(("docker", docker_container.DOCKER_IMPORT_ERROR))
    for library, error in libraries:
        if error:
            module.fail_json(missing_required_lib(library), exception=error)


def out_of_bounds(name: str, value: float, bounds: tuple[float, float]) -> str | None:
    low, high = bounds
    if low <= value <= high:
        return None
    return f"{name}: expected a number from {low:g} to {high:g}, got {value}"


def invalid(params: Mapping[str, Any], bounds: Mapping[str, tuple[float, float]]) -> str | None:
    """The first problem of the options above, and of the numbers with `bounds`."""
    for name, limits in bounds.items():
        if problem := out_of_bounds(name, params[name], limits):
            return problem
    if not re.match(r"https?://[^/\s]+", params["base_url"]):
        return f"base_url: expected http://host:port, got {params['base_url']!r}"
    tokens = (params["speculation"] or {}).get("num_speculative_tokens")
    if tokens is not None and not (str(tokens).isdigit() and int(tokens) > 0):
        return f"speculation.num_speculative_tokens: expected a whole number above 0, got {tokens!r}"
    return None


def speculation(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """The speculative config, its number as an integer even if a template made it text. None without speculation."""
    given = params["speculation"] or None
    if given and "num_speculative_tokens" in given:
        return given | {"num_speculative_tokens": int(given["num_speculative_tokens"])}
    return given


class Run(Protocol):
    """Observes a server: the gate or the benchmark."""

    def run(self) -> None: ...


def observe(
    module: AnsibleModule,
    wanted: diagnosis.Wanted,
    make: Callable[[observed.Observer], Run],
    tell: Callable[[Mapping[str, Any]], None] = lambda found: None,
    **failed: Any,
) -> None:
    """Run an observer, and end the module with what it found.

    :param tell: gets what the module returns about the server, before it ends
    :param failed: returned with a failure, besides its diagnosis
    """

    def fail(message: str, **found: Any) -> None:
        tell(found)
        module.fail_json(message, changed=False, **found)

    params = module.params
    container: gate_container.Container = gate_container.NoContainer()
    try:
        if params["container"]:
            container = docker_container.DockerContainer(params["container"], [params["api_key"] or ""])
        server = client.Server(params["base_url"], params["api_key"])
        observer = observed.Observer(wanted, container, server, Progress.from_environment().say)
        try:
            make(observer).run()
        finally:
            for warning in observer.warnings:
                module.warn(warning)
    except observed.Failed as failure:
        code = failure.finding.code
        fail(str(failure), diagnosis=code, **failed, **observer.result)
    except docker_container.EngineError as error:
        fail(str(error), diagnosis="engine_unreachable", **failed)
    tell(observer.result)
    module.exit_json(changed=False, **observer.result)
