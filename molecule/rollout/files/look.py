"""Prints what serves on this host, what is recorded, and what became of the server since a time, as the host has it.

python3 - SINCE    Unix time; the last argument of the engine's events
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

NAME = "sparkfleet-vllm"
STATE = Path("/var/lib/sparkfleet/state.json")


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False).stdout


def container() -> dict[str, Any] | None:
    found = json.loads(docker("container", "inspect", NAME) or "[]")
    if not found:
        return None
    seen = found[0]
    return {
        "id": seen["Id"],
        "status": seen["State"]["Status"],
        "started": seen["State"]["StartedAt"],
        "restarts": seen["RestartCount"],
        # What it is made of: two containers of one spec are equal in this.
        "spec": {
            "image": seen["Image"],
            "name": seen["Config"]["Image"],
            "argv": seen["Args"],
            "env": sorted(seen["Config"]["Env"]),
            "labels": seen["Config"]["Labels"],
            "host": {
                key: seen["HostConfig"][key]
                for key in ("Binds", "PortBindings", "RestartPolicy", "CapDrop", "ShmSize")
            },
        },
    }


def events(since: float) -> list[dict[str, Any]]:
    """Of the container and of those before it under its name, oldest first."""
    lines = docker(
        "events", f"--since={since:.3f}", f"--until={time.time():.3f}", "--filter=type=container", "--format={{json .}}"
    ).splitlines()  # fmt: skip
    seen = [event for event in map(json.loads, lines) if event["Actor"]["Attributes"].get("name") == NAME]
    return [
        {"id": event["id"], "action": event["status"].partition(":")[0], "time": event["timeNano"] / 1e9}
        for event in seen
    ]


def drafts() -> float | None:
    """That the server has made; None where none answers."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:8000/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return None
    return sum(
        float(value) for value in re.findall(r"^vllm:spec_decode_num_drafts_total\{.*\} (\S+)$", text, re.M)
    )


print(
    json.dumps(
        {
            "container": container(),
            "state": STATE.read_text() if STATE.exists() else "",
            "recorded_at": STATE.stat().st_mtime if STATE.exists() else 0,
            "events": events(float(sys.argv[1])),
            "drafts": drafts(),
        }
    )
)
