# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of the watchdog and the places of its files. The module writes them, the program reads them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._common import json_text
from .._common.shape import wrong

VERSION = 1
OBSERVE, ACT = "observe", "act"
LIMIT = 64 * 1024
"""Bytes of the settings, and of the key."""


class SettingsError(ValueError):
    """The settings cannot be used. Says what was expected, what was seen, and what to do."""


@dataclass(frozen=True)
class Settings:
    mode: str = OBSERVE
    interval: int = 20
    """Seconds, as all times here."""
    ready_timeout: int = 1200
    canary_interval: int = 60
    canary_timeout: int = 15
    stall: int = 35
    restarts: int = 2
    """Within an hour."""
    memory_floor: float = 4.0
    """GiB"""
    swap_in: float = 10.0
    """MiB a second"""
    idle_watts: float = 30.0


_TYPES: dict[str, Any] = {
    field.name: {"str": str, "int": int, "float": float}[str(field.type)]
    for field in dataclasses.fields(Settings)
}
LEAST = {"interval": 5, "ready_timeout": 1, "canary_interval": 1, "canary_timeout": 1, "stall": 10} | {
    "restarts": 0,
    "memory_floor": 0,
    "swap_in": 0,
    "idle_watts": 0,
}
MOST = {"interval": 120, "canary_timeout": 60}
"""A verdict of more than five minutes ago counts no more, and a look must be over before the next one."""


@dataclass(frozen=True)
class Places:
    """Where the watchdog keeps what. Only root enters the directory."""

    state_dir: Path

    @property
    def directory(self) -> Path:
        return self.state_dir / "watchdog"

    @property
    def config(self) -> Path:
        return self.directory / "config.json"

    @property
    def key(self) -> Path:
        return self.directory / "key"

    @property
    def memory(self) -> Path:
        return self.directory / "memory.json"

    @property
    def verdict(self) -> Path:
        return self.directory / "verdict.json"

    @property
    def evidence(self) -> Path:
        return self.directory / "evidence"


def checked(settings: Settings) -> Settings:
    """:raises SettingsError: a value is none that the watchdog could work with"""
    for name, least in LEAST.items():
        value, most = getattr(settings, name), MOST.get(name)
        if value < least or (most is not None and value > most):
            wanted = f"from {least} on" if most is None else f"{least} to {most}"
            raise SettingsError(f"{name}: expected {wanted}, seen {value:g}; correct watchdog_{name}")
    if settings.mode not in (OBSERVE, ACT):
        raise SettingsError(
            f"mode: expected {OBSERVE} or {ACT}, seen {settings.mode!r:.40}; correct spark_watchdog"
        )
    return settings


def config(settings: Settings) -> dict[str, Any]:
    """What the file of settings holds."""
    return {"version": VERSION, **dataclasses.asdict(settings)}


def load(places: Places) -> Settings:
    """:raises SettingsError: the file is not there, or is none of this version"""
    do = "run site.yml, which writes it"
    try:
        found = json_text.read_file(places.config, limit=LIMIT)
    except (OSError, ValueError) as error:
        raise SettingsError(f"expected settings in {places.config}, seen: {error}; {do}") from error
    unfit = wrong(found, {"version": int, **_TYPES})
    if unfit or found["version"] != VERSION:
        seen = unfit or f"version {found['version']}"
        raise SettingsError(f"expected settings of version {VERSION} in {places.config}, seen: {seen}; {do}")
    return checked(Settings(**{name: found[name] for name in _TYPES}))


def api_key(places: Places) -> str | None:
    """The key of the server; None without one."""
    try:
        with places.key.open("rb") as file:
            return file.read(LIMIT).decode().strip() or None
    except (OSError, UnicodeDecodeError):
        return None
