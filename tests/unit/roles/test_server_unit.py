"""The process of the unit that keeps a server running, run by a real shell; `docker` is a stub that answers as the engine does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import jinja2
import pytest
from helpers.recipe import ROOT

TEMPLATE = ROOT / "roles/vllm_serve/templates/server.service.j2"
DOCKER = """#!/bin/sh
echo "$@" >>"$HOME/asked"
case $1 in
wait) cat "$HOME/waited" ;;
events) cat "$HOME/signals" ;;
inspect) case "$*" in *StartedAt*) echo 2026-01-01T00:00:00Z ;; *) cat "$HOME/running" ;; esac ;;
esac
"""


def unit(**over: object) -> str:
    known = {
        "__vllm_serve_serving": {"container": {"name": "v"}},
        "__vllm_serve_stop_timeout": "30",
        "vllm_serve_drop_caches": True,
        **over,
    }
    template = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined).from_string(
        TEMPLATE.read_text()
    )
    return template.render(known)


def script(setting: str, text: str) -> str:
    """What `/bin/sh -c` gets of a setting, as systemd reads it."""
    found = re.search(rf"^{setting}=-?/bin/sh -c '(.*?)'$", text.replace("\\\n", " "), re.MULTILINE)
    assert found, text
    return found[1].replace("$$", "$").replace("%%", "%")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A server that has ended by itself."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    for name, text in {"waited": "0\n", "signals": "", "running": "false\n"}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(host: Path, setting: str, **environment: str) -> int:
    known = {"HOME": str(host), "PATH": f"{host}:/usr/bin:/bin", **environment}
    return subprocess.run(["/bin/sh", "-c", script(setting, unit())], env=known, check=False).returncode


@pytest.mark.parametrize(
    ("signals", "running", "again"),
    [
        ("", "false", True),  # it died, or was killed from inside
        ("15\n", "false", False),  # docker stop
        ("15\n9\n", "false", False),  # docker stop, with patience lost
        ("2\n", "false", False),  # docker stop, of an image with that stop signal
        ("9\n", "false", False),  # docker kill
        ("10\n", "false", True),  # docker kill -s USR1, and it died later
        ("15\n", "true", True),  # docker restart: goes on watching
    ],
)
def test_an_end_that_nobody_asked_for_is_one_to_start_again_after(
    host: Path, signals: str, running: str, again: bool
) -> None:
    (host / "signals").write_text(signals)
    (host / "running").write_text(running + "\n")
    assert (run(host, "ExecStart") != 0) is again
    asked = (host / "asked").read_text().splitlines()
    assert asked[:2] == ["inspect --format {{.State.StartedAt}} v", "wait v"]
    assert "--since 2026-01-01T00:00:00Z --until 1" in asked[2] or "--until 2" in asked[2]


def test_an_engine_that_does_not_answer_is_asked_again(host: Path) -> None:
    (host / "docker").write_text("#!/bin/sh\nexit 1\n")
    assert run(host, "ExecStart") != 0


def test_a_unit_whose_process_has_ended_stops_no_container(host: Path) -> None:
    assert run(host, "ExecStop") == 0 and not (host / "asked").exists()
    assert run(host, "ExecStop", MAINPID="7") == 0
    assert (host / "asked").read_text() == "stop -t 30 v\n"


def test_the_cache_is_dropped_for_a_server_that_is_about_to_start_and_only_if_wanted() -> None:
    assert "drop_caches" in script("ExecStartPre", unit())
    assert "drop_caches" not in unit(vllm_serve_drop_caches=False)


def test_the_fourth_end_within_the_hour_is_the_last() -> None:
    settings = dict(line.split("=", 1) for line in unit().splitlines() if "=" in line and line[0].isupper())
    assert (settings["StartLimitIntervalSec"], settings["StartLimitBurst"]) == ("1h", "4")
    assert settings["Restart"] == "on-failure" and settings["TimeoutStopSec"] == "60"
