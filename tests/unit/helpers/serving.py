"""Inputs of a server, for tests that are about others of them."""

from __future__ import annotations

from typing import Any

NOTHING_MORE: dict[str, Any] = {
    "entrypoint": [],
    "caches": {},
    "devices": [],
    "allowed_devices": ["/dev/infiniband"],
    "ulimits": {},
    "mounts": [],
    "host_environment": {},
    "host_facts": {"address": "192.0.2.7", "interface": "", "name": "spark-7"},
    "allowed_paths": [],
    "store": "/srv/s",
    "topology": {},
    "unit": {},
    "unit_port": 8622,
    "master_port": 29501,
    "state_dir": "/var/lib/s",
    "ipc": "private",
}
"""What a recipe may ask for besides, and does not."""
