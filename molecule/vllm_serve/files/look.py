"""Prints what serves and what is recorded, as the host itself has it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

asked = ["docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", "name=^/sparkfleet-vllm$"]
server = []
for name in subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split():
    shown = subprocess.run(["docker", "inspect", name], check=True, capture_output=True, text=True).stdout
    server = [name, json.loads(shown)[0]["State"]["StartedAt"]]
state = Path("/var/lib/sparkfleet/state.json")
print(json.dumps({"server": server, "state": state.read_text() if state.exists() else ""}))
