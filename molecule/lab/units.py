# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A unit of lab Sparks that serve one model together, as its members say it and as a client meets it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streams import Address
from testing import ROOT, docker, on, until

NAME = "sparkfleet-vllm"
STATE = "/var/lib/sparkfleet"
MODEL = "huihui-gemma4"
SHARE = 0.69
"""Of drafts that are accepted, as the draft was constructed."""
TOLERANCE = 0.05
FRESH = 10.0
"""Seconds since a member wrote its status. It writes every second."""
OTHER = {"body": "b0d1" * 10, "draft": "d4af" * 10}
"""Commits, by name, of models that nothing here serves."""
MAIN = f"$(docker inspect --format '{{{{.State.Pid}}}}' {NAME})"
WORKER = "VLLM::[W]orker"
"""vLLM's own process of a rank. The brackets keep the script that holds this from matching."""


def status(spark: str) -> dict[str, Any]:
    """What the member wrote last; empty before it ever did."""
    text = on(spark, f"cat {STATE}/unit/status.json 2>/dev/null || true")
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


def phase(spark: str) -> str:
    """Empty for one that has not written for a while."""
    seen = status(spark)
    return str(seen["phase"]) if seen and time.time() - seen["at"] < FRESH else ""


def generation(sparks: Sequence[str]) -> str:
    """That in which all of them run; empty where they do not."""
    if {phase(spark) for spark in sparks} != {"running"}:
        return ""
    found = {str(status(spark)["generation"]) for spark in sparks}
    return found.pop() if len(found) == 1 else ""


def address(of_head: str) -> Address:
    """Of the API. One step of vLLM may take as long as the scenario's inventory says."""
    return Address(f"http://{of_head}:8000", "", MODEL, silence=90)


def counts(at: Address, numbers: int = 20) -> bool:
    """Whether it answers, and with what its body was constructed to say."""
    asked = {"model": at.model, "messages": [{"role": "user", "content": "go on"}], "max_tokens": numbers}
    try:
        code, _, text = at.ask("POST", "/v1/chat/completions", asked)
    except (OSError, http.client.HTTPException):
        return False
    if code != 200:
        return False
    said = json.loads(text)["choices"][0]["message"]["content"].split()
    assert said == [str(number) for number in range(1, numbers + 1)], said
    return True


def serves_anew(sparks: Sequence[str], at: Address, former: str, within: float = 300) -> str:
    """Waits until all members run in another generation than `former`, and answer. Gives it."""

    def another() -> str:
        found = generation(sparks)
        return found if found != former else ""

    found = until(another, within)
    until(lambda: counts(at), within)
    return found


def afresh(sparks: Sequence[str], at: Address) -> str:
    """All containers started anew: failures of before count no more, for the head as for systemd. Gives the generation."""
    former = generation(sparks)
    for spark in sparks:
        on(spark, f"docker unpause {NAME} 2>/dev/null || true; systemctl reset-failed {NAME} || true")
        on(spark, f"systemctl restart {NAME}")
    return serves_anew(sparks, at, former)


def container(spark: str) -> dict[str, Any]:
    """As the engine describes it."""
    (seen,) = json.loads(on(spark, f"docker inspect {NAME}"))
    return dict(seen)


def life(spark: str) -> tuple[str, str]:
    """One life of one container."""
    seen = container(spark)
    return seen["Id"], seen["State"]["StartedAt"]


def recorded(spark: str) -> dict[str, Any]:
    """What passed there last."""
    return dict(json.loads(on(spark, f"cat {STATE}/state.json"))["current"])


def other_models(spark: str) -> dict[str, str]:
    """{role: place on the host} of a body that says something else, and of a draft that is never right, both as large as the served ones."""
    places = {role: f"/srv/sparkfleet/models/other--{role}/{commit}" for role, commit in OTHER.items()}
    with tempfile.TemporaryDirectory() as folder:
        make = [sys.executable, str(ROOT / "molecule/lab/vllm/weights.py")]
        subprocess.run([*make, "--body", f"{folder}/body", "--seed", "1"], check=True)
        subprocess.run([*make, "--draft", f"{folder}/draft", "--acceptance", "0"], check=True)
        for role, place in places.items():
            on(spark, f"rm -rf {place}; mkdir -p {place}")
            docker("cp", f"{Path(folder) / role}/.", f"sparkfleet-lab-{spark}:{place}")
            on(spark, f"chown -R root: {place}; chmod -R u=rwX,go=rX {place}")
    return places


def cut(one: str, other: str) -> None:
    """Between two hosts packets vanish, both ways; all else reaches `one`, the controller too."""
    on(one, f"iptables -w -I INPUT -s {other} -j DROP; iptables -w -I OUTPUT -d {other} -j DROP")


def mend(one: str, other: str) -> None:
    on(one, f"iptables -w -D INPUT -s {other} -j DROP; iptables -w -D OUTPUT -d {other} -j DROP")


def opens(spark: str, to: str, ports: Sequence[int]) -> set[int]:
    """The ports of another host that take a connection."""
    # All at once: a closed port gives no answer, so each attempt takes its whole time.
    attempt = f'timeout 5 bash -c ": </dev/tcp/{to}/$port" 2>/dev/null && echo $port'
    tries = f"for port in {' '.join(map(str, ports))}; do ({attempt} || true) & done; wait"
    return set(map(int, on(spark, tries).split()))


def listeners(spark: str) -> list[int]:
    """Ports that others could reach, but for those of vLLM's API and of sshd."""
    seen = on(
        spark, "ss -tlnH | awk '{print $4}' | grep -Ev '^(127\\.|\\[::1\\])' | grep -Eo '[0-9]+$' | sort -un"
    )
    return [port for port in map(int, seen.split()) if port not in (22, 8000)]
