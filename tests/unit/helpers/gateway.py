"""Inputs of a gateway, good ones to differ from."""

from __future__ import annotations

from typing import Any

KEY = "sk-Vq3xT0aLw9ZpR7uKc2MdYh5N"
OTHER_KEY = "sk-Hn8bE4fGy6JtQ1sXo0WvUi3P"


def server(name: str, **given: Any) -> dict[str, Any]:
    number = sum(name.encode()) % 250 + 1
    return {
        "name": name,
        "model": "chat",
        "recipe": "first",
        "address": f"192.0.2.{number}",
        "port": 8000,
        **given,
    }


def inputs(**given: Any) -> dict[str, Any]:
    """Of one Spark and one key."""
    return {
        "addresses": ["0.0.0.0"],
        "port": 8443,
        "tls": True,
        "plain": False,
        "server_key": False,
        "servers": [server("spark-1")],
        "virtual_address": "",
        "host": "gate-1",
        "gateways": {"gate-1": "192.0.2.251", "gate-2": "192.0.2.252"},
        "monitoring": {},
        "metrics_port": 8405,
        "keys": [{"name": "anna", "key": KEY}],
        "concurrent": 16,
        "requests_per_minute": 600,
        "limits": {},
        "timeouts": {},
    } | given  # fmt: skip
