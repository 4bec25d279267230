"""Taking a Spark out of a gateway's traffic and letting it in again, beside a stub of HAProxy's socket."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import files, store
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gateway import haproxy, module, states
from ansible_collections.sparkfleet.vllm.plugins.modules import gateway_server
from helpers.haproxy_stub import Master, StubServer, serving


def fleet(**states: str) -> dict[str, StubServer]:
    """Two Sparks that chat, the first of which embeds alone."""
    servers = {name: StubServer() for name in ("chat/spark-1", "chat/spark-2", "embed/spark-1")}
    return servers | {
        name.replace("_", "/", 1).replace("_", "-"): StubServer(state) for name, state in states.items()
    }


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(gateway_server, "PAUSE", 0.01)
    monkeypatch.setattr(module, "Haproxy", lambda path: haproxy.Haproxy(path, seconds=1))

    def ask(master: Master, **given: Any) -> dict[str, Any]:
        options = {
            "socket": master.socket,
            "state_file": str(tmp_path / "servers"),
            "name": "spark-2",
            **given,
        }
        with patch_module_args(options), pytest.raises(SystemExit):
            gateway_server.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return ask


def changes(master: Master) -> list[str]:
    return [command for command in master.asked if " set server " in command]


def test_without_a_state_it_only_looks(call: Any, tmp_path: Path) -> None:
    with serving(Master({"7": fleet()})) as master:
        result = call(master, name="spark-1")
    assert result["servers"] == [
        {"pool": "chat", "state": "ready", "up": True, "sessions": 0},
        {"pool": "embed", "state": "ready", "up": True, "sessions": 0},
    ]
    assert (result["changed"], result["idle"], changes(master)) == (False, True, [])
    assert not (tmp_path / "servers").exists()


def test_a_drain_is_made_and_kept(call: Any, tmp_path: Path) -> None:
    with serving(Master({"7": fleet()})) as master:
        result = call(master, state="drained")
        assert (result["changed"], result["idle"]) == (True, True)
        assert result["diff"] == {"before": {"chat/spark-2": "ready"}, "after": {"chat/spark-2": "drained"}}
        assert result["servers"] == [{"pool": "chat", "state": "drained", "up": True, "sessions": 0}]
        kept = (tmp_path / "servers").read_text()
        assert kept.startswith("1\n#")
        assert "chat 7 spark-2 192.0.2.1 2 8 " in kept
        again = call(master, state="drained")
        assert again["changed"] is False
        back = call(master, state="ready")
        assert (back["changed"], back["servers"][0]["state"]) == (True, "ready")
        assert "chat 7 spark-2 192.0.2.1 2 0 " in (tmp_path / "servers").read_text()


def test_what_is_in_maintenance_stays_there_until_somebody_ends_it(call: Any) -> None:
    with serving(Master({"7": fleet()})) as master:
        master.workers["7"]["chat/spark-2"].sessions = 2
        away = call(master, state="maintenance", timeout=0)
        assert (away["changed"], away["idle"]) == (True, False)
        drained = call(master, state="drained", timeout=0)
        assert (drained["changed"], drained["servers"][0]["state"]) == (False, "maintenance")
        assert call(master, state="ready")["servers"][0]["state"] == "ready"


def test_a_check_changes_nothing(call: Any, tmp_path: Path) -> None:
    with serving(Master({"7": fleet()})) as master:
        master.workers["7"]["chat/spark-2"].sessions = 3
        result = call(master, state="drained", _ansible_check_mode=True)
    assert (result["changed"], result["diff"]["after"], changes(master)) == (
        True,
        {"chat/spark-2": "drained"},
        [],
    )
    assert (result["idle"], result["waited"]) == (False, 0)
    assert not (tmp_path / "servers").exists()


@pytest.mark.parametrize("check", [True, False])
def test_the_last_usable_server_stays(call: Any, check: bool) -> None:
    with serving(Master({"7": fleet()})) as master:
        result = call(master, name="spark-1", state="drained", _ansible_check_mode=check)
        assert "expected another usable server in embed before spark-1 is drained" in result["msg"]
        assert result["outage"] == ["embed"]
        assert changes(master) == []
        assert call(master, name="spark-1", state="drained", pools=["chat"])["changed"] is True


@pytest.mark.parametrize(
    "other", [StubServer("drain", "DRAIN"), StubServer("ready", "DOWN"), StubServer("maint", "MAINT")]
)
def test_a_server_that_gets_nothing_is_no_other_one(call: Any, other: StubServer) -> None:
    with serving(Master({"7": fleet() | {"chat/spark-1": other}})) as master:
        assert call(master, state="drained")["outage"] == ["chat"]
        assert call(master, state="drained", allow_outage=True)["changed"] is True


def test_what_is_down_already_is_no_outage(call: Any) -> None:
    servers = {"chat/spark-1": StubServer("ready", "DOWN"), "chat/spark-2": StubServer("ready", "DOWN 1/2")}
    with serving(Master({"7": servers})) as master:
        assert call(master, state="drained")["changed"] is True


def test_it_waits_for_the_streams_of_former_workers_too(call: Any) -> None:
    master = Master({"7": fleet(), "5": fleet()})
    master.workers["7"]["chat/spark-2"].sessions = 1
    master.workers["5"]["chat/spark-2"].sessions = 2
    looks = iter(range(1000))

    def end(command: str) -> None:
        if command == "show proc" and next(looks) == 6:
            master.workers["7"]["chat/spark-2"].sessions = 0
        if command.startswith("@!5 show stat") and next(looks) > 14:
            master.workers.pop("5", None)

    master.before = end
    with serving(master):
        result = call(master, state="drained")
    assert (result["idle"], result["servers"][0]["sessions"]) == (True, 0)
    assert "5" not in master.workers
    assert changes(master) == [f"@!{pid} set server chat/spark-2 state drain" for pid in ("7", "5")]


def test_a_drain_that_a_reload_forgot_is_made_again(call: Any, tmp_path: Path) -> None:
    master = Master({"7": fleet()})

    def reload(command: str) -> None:
        # Once the drain is kept: the new worker has read the states before.
        if (tmp_path / "servers").exists() and "8" not in master.workers:
            master.workers = {"8": fleet(), **master.workers}

    master.before = reload
    with serving(master):
        result = call(master, state="drained")
    assert result["servers"][0]["state"] == "drained"
    assert master.workers["8"]["chat/spark-2"].state == "drain"
    assert "spark-2 192.0.2.1 2 8 " in (tmp_path / "servers").read_text()


def test_a_worker_that_a_reload_has_replaced_meanwhile_is_not_the_one_to_ask(call: Any) -> None:
    master = Master({"7": fleet()})

    def reload(command: str) -> None:
        if command == "@!7 show servers state" and "7" in master.workers:
            master.workers = {"8": fleet()}

    master.before = reload
    with serving(master):
        assert call(master, state="drained")["changed"] is True
    assert master.workers["8"]["chat/spark-2"].state == "drain"


def test_it_waits_no_longer_than_it_may(call: Any) -> None:
    with serving(Master({"7": fleet()})) as master:
        master.workers["7"]["chat/spark-2"].sessions = 3
        result = call(master, state="drained", timeout=0)
    assert (result["changed"], result["idle"], result["servers"][0]["sessions"]) == (True, False, 3)


def test_a_spark_that_is_not_there(call: Any) -> None:
    with serving(Master({"7": fleet()})) as master:
        result = call(master, name="spark2", state="drained")
        assert (
            "expected spark2 behind this gateway, seen: chat/spark-1, chat/spark-2, embed/spark-1"
            in result["msg"]
        )
        assert "do: name spark-2" in result["msg"]
        ignored = call(master, name="spark2", state="drained", absent="ignore")
    assert (ignored["changed"], ignored["servers"], ignored["idle"]) == (False, [], True)
    assert changes(master) == []


def test_a_gateway_that_is_not_set_up_has_no_spark_and_one_that_was_must_answer(
    call: Any, tmp_path: Path
) -> None:
    none, kept = Master({}, socket=str(tmp_path / "none")), tmp_path / "kept"
    options = {"state": "drained", "absent": "ignore", "state_file": str(kept / "servers")}
    assert call(none, **options)["servers"] == []
    assert "expected a gateway on this host" in call(none, **options | {"absent": "fail"})["msg"]
    assert not kept.exists()
    kept.mkdir()
    assert "expected an answer of HAProxy" in call(none, **options)["msg"]


def test_one_at_a_time_judges_the_servers(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two Sparks that are drained at once would each see the other one as usable."""
    monkeypatch.setattr(states, "PATIENCE", 0.1)
    with serving(Master({"7": fleet()})) as master, store.locked(tmp_path, 1, print):
        result = call(master, state="drained")
    assert "expected to be the only run within 0 s" in result["msg"]
    assert master.asked == []


def test_no_haproxy(call: Any, tmp_path: Path) -> None:
    result = call(Master({}, socket=str(tmp_path / "none")), state="drained")
    assert "No such file or directory; do: look at journalctl -u sparkfleet-gateway" in result["msg"]


@pytest.mark.parametrize(
    ("command", "answer", "said"),
    [
        ("show proc", b"", "no answer"),
        ("show proc", b"7 master\n", "expected a worker"),
        ("@!7 show servers state", b"2\n", "expected version 1"),
        ("@!7 show servers state", b"1\n3 chat 7\n", "expected 19 fields"),
        (
            "@!7 show servers state",
            b"1\n3 chat 7 spark-2 192.0.2.1 2 x 1 1 60 15 0 4 7 0 0 1 - 8000\n",
            "expected a number",
        ),
        ("@!7 show stat -1 4 -1", b"Permission denied\n", "expected pxname"),
        ("@!7 show stat -1 4 -1", b"# pxname,svname,scur,status\nchat,spark-2\n", "expected a row"),
        ("@!7 set server chat/spark-2 state drain", b"Permission denied\n", "Permission denied"),
    ],
)
def test_an_answer_that_nobody_understands_is_said(call: Any, command: str, answer: bytes, said: str) -> None:
    with serving(Master({"7": fleet()}, answers={command: answer})) as master:
        result = call(master, state="drained")
    assert result["failed"]
    assert said in result["msg"]


def test_an_answer_without_an_end_is_left(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "LIMIT", 1000)
    with serving(Master({"7": fleet()}, answers={"show proc": b"x" * 100_000})) as master:
        assert "more than 1000 bytes" in call(master)["msg"]


def test_an_answer_that_never_comes_is_left() -> None:
    given_up = threading.Event()
    with serving(Master({"7": fleet()})) as master:
        master.before = lambda command: given_up.wait(30)
        with pytest.raises(haproxy.HaproxyError, match="timed out"):
            haproxy.Haproxy(master.socket, seconds=0.2).ask("show proc")
        given_up.set()


def test_a_full_disk_is_said(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with serving(Master({"7": fleet()})) as master:
        result = call(master, state="drained")
    assert "No space left on device" in result["msg"]
    assert "would lose it when HAProxy is reloaded" in result["msg"]
