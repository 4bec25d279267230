# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watchdog of a host is to be, by the options of the module. The module brings it about, and drift compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from .._common import sources
from . import install, units
from .settings import Places, Settings, SettingsError, checked

ENTRY = "_watchdog.program"
ARGUMENT_SPEC: dict[str, Any] = {
    "mode": {"type": "str", "choices": ["off", "observe", "act"], "default": "observe"},
    "agent_address": {"type": "str", "default": ""},
    "agent_port": {"type": "int", "default": 8621},
    "interval": {"type": "int", "default": 20},
    "api_key": {"type": "str", "no_log": True},
    "ready_timeout": {"type": "int", "default": 1200},
    "canary_interval": {"type": "int", "default": 60},
    "canary_timeout": {"type": "int", "default": 15},
    "stall": {"type": "int", "default": 35},
    "restarts": {"type": "int", "default": 2},
    "memory_floor": {"type": "float", "default": 4},
    "swap_in": {"type": "float", "default": 10},
    "idle_watts": {"type": "float", "default": 30},
    "state_dir": {"type": "path", "default": "/var/lib/sparkfleet"},
    "python": {"type": "path", "default": "/opt/sparkfleet/venv/bin/python"},
}


@dataclass(frozen=True)
class Plan:
    places: Places
    program: str
    """Its digest."""
    content: dict[str, bytes]
    """Of the program, by path."""
    after: install.State
    """Nothing at all where it is off."""


def planned(options: Mapping[str, Any]) -> Plan:
    """:param options: as ARGUMENT_SPEC has them
    :raises SettingsError, SourceError: no watchdog is made of them
    """
    places = Places(Path(options["state_dir"]))
    content = sources.files(ENTRY)
    program = sources.digest(content)
    if options["mode"] == "off":
        return Plan(places, program, content, install.State())
    settings = checked(Settings(**{field.name: options[field.name] for field in fields(Settings)}))
    address = options["agent_address"]
    agent = units.Agent(address, options["agent_port"]) if address else None
    python, folder = Path(options["python"]), install.PROGRAMS / program
    texts = units.texts(python, folder, places.state_dir, settings.interval, agent)
    return Plan(places, program, content, install.wanted(settings, options["api_key"], texts, program))


def given(options: Mapping[str, Any]) -> Plan:
    """The plan of options that no module has checked: with defaults and types.

    :raises SettingsError, SourceError: no watchdog is made of them
    """
    checked_options = ArgumentSpecValidator(ARGUMENT_SPEC).validate(dict(options))
    if said := checked_options.error_messages:
        raise SettingsError(f"expected options of the module watchdog, seen: {'; '.join(said)}; correct them")
    return planned(checked_options.validated_parameters)
