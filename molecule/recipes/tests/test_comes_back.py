"""A server of the real vLLM comes back after whatever ends it, until the fourth end within an hour, and a deliberate stop stays one."""

from __future__ import annotations

import pytest
import testing
from test_recipes import recorded

HOST, NAME = "catalogue", "sparkfleet-vllm"
MAIN = f"docker inspect --format '{{{{.State.Pid}}}}' {NAME}"
ENGINE = f"pgrep --full EngineCore --parent $({MAIN})"
ENDS = {
    "asked to end, and not by the engine": f"kill -15 $({MAIN})",
    # As the kernel does it for want of memory. vLLM then ends with status 0.
    "engine process killed": f"kill -9 $({ENGINE})",
    "worker killed": f"kill -9 $(pgrep --full VLLM::Worker --parent $({ENGINE}))",
    "API server killed": f"kill -9 $({MAIN})",
}


def on(script: str) -> str:
    return testing.on(HOST, script)


def started() -> str:
    return on(f"docker inspect --format '{{{{.State.StartedAt}}}}' {NAME}").strip()


def unit() -> str:
    return on(f"systemctl is-active {NAME} || true").strip()


def answers() -> bool:
    return on("curl -fs -o /dev/null http://127.0.0.1:8000/health && echo yes || true").strip() == "yes"


def ended() -> bool:
    return on(f"docker inspect --format '{{{{.State.Status}}}}' {NAME}").strip() == "exited"


@pytest.fixture(scope="module", autouse=True)
def counted_anew():
    """Ends of this hour are those of these tests alone; others may follow."""
    on(f"systemctl restart {NAME}; systemctl reset-failed {NAME} || true")
    testing.until(answers, within=300)
    yield
    on(f"systemctl reset-failed {NAME}; systemctl restart {NAME}")
    testing.until(answers, within=300)


@pytest.mark.parametrize("end", ENDS.values(), ids=list(ENDS))
def test_it_comes_back(end):
    if end == ENDS["engine process killed"]:
        on(f"systemctl reset-failed {NAME}")  # the three that follow are the first of their hour
    before = started()
    assert unit() == "active"
    on(end)
    testing.until(lambda: started() != before, within=120)
    testing.until(answers, within=300)
    assert unit() == "active"


def test_the_fourth_end_is_the_last():
    on(ENDS["engine process killed"])
    testing.until(lambda: unit() == "failed", within=120)
    assert ended() and on(f"docker inspect --format '{{{{.State.ExitCode}}}}' {NAME}").strip() == "0"


@pytest.mark.parametrize("stop", [f"docker stop {NAME}", f"systemctl stop {NAME}"])
def test_a_deliberate_stop_stays_one(stop):
    on(f"systemctl reset-failed {NAME}; systemctl restart {NAME}")
    testing.until(answers, within=300)
    on(stop)
    testing.until(lambda: unit() == "inactive")
    on("sleep 12")  # longer than the unit pauses before a start
    assert ended() and unit() == "inactive"


def test_what_is_recorded_is_untouched(sudo):
    assert recorded(sudo)["serving"]["recipe"] == "huihui-gemma4-mtp-n1-release"
