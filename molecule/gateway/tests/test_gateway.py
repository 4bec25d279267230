"""Requests through the gateways while the fleet behind them is changed, loses its power and comes back."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator

import gateways
import pytest
from gates import GATES, KEY, POOL, SCENARIO, SPARKS, all_up, busiest, states
from running import power_off
from streams import Address, Load
from testing import look, on, until

pytestmark = pytest.mark.usefixtures("serving")
GUEST = "sk-lab-Qe5Zt9uY1oPa7Sd3Fg8Hj2Kl6Xc4Vb0n"
CHAT = {"model": POOL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@pytest.fixture
def address() -> Address:
    return at("gate-1")


def at(gate: str) -> Address:
    return gateways.address(gate, GATES[gate], KEY, POOL)


@pytest.mark.parametrize("gate", GATES)
def test_it_answers_who_has_a_key_and_nothing_else(gate):
    address = at(gate)
    status, _, text = address.ask("POST", "/v1/chat/completions", CHAT)
    assert status == 200 and json.loads(text)["usage"]["completion_tokens"] == 4
    status, _, text = address.ask("GET", "/v1/models")
    assert [model["id"] for model in json.loads(text)["data"]] == [POOL]
    assert address.ask("POST", "/v1/chat/completions", CHAT, key="")[0] == 401
    assert address.ask("POST", "/v1/chat/completions", CHAT, key=KEY[::-1])[0] == 401
    for path in ("/metrics", "/health", "/tokenize", "/docs", "/v1/load_lora_adapter"):
        assert address.ask("GET", path)[0] == 404, path
    log = on(gate, "journalctl -t haproxy -o cat --no-pager | tail -n 40")
    assert "key=load POST /v1/chat/completions" in log
    assert KEY not in log and "hello" not in log


def test_the_port_of_a_spark_answers_the_gateways_alone():
    """The ports of a Spark as two other hosts find them."""
    scan = SCENARIO / "tests/scan.py"
    seen = {host: look(host, scan, "172.31.250.111", "10000") for host in ("stranger", "gate-1")}
    # vLLM, and the agent of the watchdog.
    assert seen == {"stranger": [22], "gate-1": [22, 8000, 8621]}


def test_a_second_run_changes_nothing_and_a_check_shows_what_would(run):
    again = run("site").end()
    assert not again.failed, again.output
    recap = [line for line in again.output.splitlines() if " ok=" in line]
    assert len(recap) == len(SPARKS) + len(GATES)
    assert all(" changed=0 " in line for line in recap), recap
    looked = run("gateway", "--check", "--diff", gateway_limits={"balance": 200}).end()
    assert not looked.failed, looked.output
    assert "+    hash-balance-factor 200" in looked.output
    assert KEY not in looked.output
    assert run("gateway").end().output.count("changed=0") == len(SPARKS) + len(GATES)


@pytest.mark.long
def test_drift_finds_what_was_done_to_a_gateway_by_hand_and_its_playbook_mends_it(run, tmp_path):
    def found() -> dict[str, set[str]]:
        done = run("drift", drift_output=str(tmp_path)).end()
        hosts = json.loads((tmp_path / "drift.json").read_text())["hosts"]
        assert done.failed == any(host["verdict"] == "drift" for host in hosts.values()), done.output
        return {name: {finding["kind"] for finding in host["findings"]} for name, host in hosts.items()}

    assert {name: kinds for name, kinds in found().items() if name in GATES} == {
        "gate-1": set(),
        "gate-2": set(),
    }
    config = "/etc/haproxy/sparkfleet/haproxy.cfg"
    on("gate-1", f"sed -i s/hash-balance-factor/#/ {config}; systemctl disable sparkfleet-gateway 2>&1")
    on(
        "gate-2",
        "echo '@1 set server stub/pool-4 state maint' | socat - UNIX-CONNECT:/run/sparkfleet-gateway/master.sock",
    )
    by_hand = found()
    assert by_hand["gate-1"] == {"gateway-file", "gateway-boot"} and by_hand["gate-2"] == {"server-out"}
    mended = run("gateway").end()
    assert not mended.failed, mended.output
    on(
        "gate-2",
        "echo '@1 set server stub/pool-4 state ready' | socat - UNIX-CONNECT:/run/sparkfleet-gateway/master.sock",
    )
    assert {name: kinds for name, kinds in found().items() if name in GATES} == {
        "gate-1": set(),
        "gate-2": set(),
    }


def test_a_rollout_in_which_one_goes_back_cuts_no_stream(address, run, tmp_path):
    """The last of four gets a draft that never agrees. Each stream ends whole, with the tokens that it asked for."""
    never = {"STUB_READY_AFTER": "0.3", "STUB_STEP": "0.04", "STUB_ACCEPTANCE": "0"}
    more = tmp_path / "fourth.yml"
    more.write_text(json.dumps({"sparks": {"hosts": {"pool-4": {"vllm_serve_extra_environment": never}}}}))
    with Load(address, clients=8, tokens=60) as load:
        change = run("site", inventories=[more], vllm_serve_extra_arguments={"max-num-seqs": 9}).end()
        time.sleep(3)
    assert change.failed
    for name in SPARKS[:3]:
        assert change.row(name).endswith(" pass")
    assert "rolled back, and that passes" in change.row("pool-4")
    assert load.faults == []
    print(
        f"{len(load.done)} streams through {change.ended - change.began:.0f} s of a rollout of four, 0 cut, 0 failed"
    )
    assert len(load.done) > 50
    until(all_up)


def test_keys_come_and_go_under_load(address, run):
    """A reload for each: no stream ends, the new key is let in, and the former one is not."""
    keys = [{"name": "load", "key": KEY, "concurrent": 100, "requests_per_minute": 100000}]
    assert address.ask("POST", "/v1/chat/completions", CHAT, key=GUEST)[0] == 200
    with Load(address, clients=8, tokens=60) as load:
        done = run("gateway", gateway_keys=keys).end()
        assert not done.failed, done.output
        assert address.ask("POST", "/v1/chat/completions", CHAT, key=GUEST)[0] == 401
        again = run("gateway").end()
        assert not again.failed, again.output
        assert address.ask("POST", "/v1/chat/completions", CHAT, key=GUEST)[0] == 200
    assert load.faults == []


def test_a_spark_without_power_loses_its_own_streams_and_no_more(address):
    with Load(address, clients=8, tokens=60) as load:
        time.sleep(5)
        spark = busiest("gate-1")
        gone = power_off(spark)
        until(lambda: states("gate-1")[spark].startswith("DOWN"), within=60)
        noticed = time.time() - gone
        time.sleep(10)
    lost = [stream for stream in load.done if stream.fault]
    # A request that was sent to it meanwhile waits for the connection, and then goes elsewhere.
    assert all(stream.began < gone for stream in lost), [
        (stream.began - gone, stream.fault) for stream in lost
    ]
    assert 0 < len(lost) <= 8, "no client was on it, or more lost a stream than had one"
    later = load.asked_after(gone)
    assert later
    print(
        f"{len(lost)} streams lost, noticed after {noticed:.1f} s; {len(later)} streams began later, none failed"
    )


@contextlib.contextmanager
def hung(spark: str) -> Iterator[None]:
    """Its server does nothing, and its port stays open."""
    on(spark, "docker pause $(docker ps -q)")
    try:
        yield
    finally:
        on(spark, "docker unpause $(docker ps -q)")


def test_a_server_that_hangs_gets_nothing_new_and_ends_what_it_has_when_it_goes_on(address):
    with Load(dataclasses.replace(address, silence=120), clients=8, tokens=60) as load:
        time.sleep(5)
        began, spark = time.time(), busiest("gate-1")
        with hung(spark):
            until(lambda: states("gate-1")[spark].startswith("DOWN"), within=60)
            noticed = time.time()
            time.sleep(5)
            # One that is asked now, and ends, is on another server.
            until(lambda: load.asked_after(noticed))
            meanwhile = len(load.asked_after(noticed))
        until(all_up)
    print(f"noticed after {noticed - began:.1f} s; {meanwhile} streams began and ended meanwhile")
    assert load.faults == []


def test_a_gateway_without_power_is_replaced_at_the_shared_address():
    """Each has its own authority here: a client that is let in knows which one answered."""
    authorities = "".join(at(gate).authority for gate in GATES)
    shared = Address("https://172.31.250.118", KEY, POOL, authorities)
    has = next(gate for gate in GATES if "172.31.250.118/" in on(gate, "ip -4 -o addr show"))
    assert shared.ask("POST", "/v1/chat/completions", CHAT)[0] == 200
    gone = power_off(has)
    until(lambda: answers(shared), within=30, every=0.05)
    print(f"{has} without power: the address answers again after {time.time() - gone:.1f} s")
    (other,) = set(GATES) - {has}
    assert "172.31.250.118/" in on(other, "ip -4 -o addr show")


def answers(address: Address) -> bool:
    try:
        return address.ask("GET", "/v1/models", timeout=1)[0] == 200
    except OSError:
        return False


def test_a_model_without_a_server_is_said_at_once(address, run):
    stop = run("stop").end()
    assert stop.failed and "expected a usable server in every pool while others are changed" in stop.output
    assert all_up()
    stopped = run("stop", spark_allow_outage=True).end()
    assert not stopped.failed, stopped.output
    took = []
    for _ in range(3):
        began = time.monotonic()
        status, headers, text = address.ask("POST", "/v1/chat/completions", CHAT)
        assert (status, headers["retry-after"]) == (503, "5") and json.loads(text)["error"]
        took.append(time.monotonic() - began)
    # Two seconds are what a request waits for a server. On a busy machine one answer may take that long by itself.
    assert min(took) < 2
    assert address.ask("GET", "/v1/models")[0] == 200
