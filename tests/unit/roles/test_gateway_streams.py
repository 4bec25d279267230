"""What the role gateway writes, in a real HAProxy: nothing that is done to a gateway or behind it cuts a stream."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.modules import gateway_config, gateway_server
from helpers.gateway import KEY, OTHER_KEY
from helpers.haproxy import PROGRAM, Gateway, behind, eventually, gateway, needs_haproxy, rendered, stubs
from helpers.vllm_stub import PAUSE, Stub

pytestmark = needs_haproxy
MANY = {"concurrent": 1000, "requests_per_minute": 100_000}
KEYS = [{"name": "team", "key": KEY, **MANY}, {"name": "bob", "key": OTHER_KEY, **MANY}]
TOKENS = 60


@pytest.fixture
def sparks() -> Iterator[list[Stub]]:
    with stubs("s1", "s2", "s3") as made:
        yield made


@pytest.fixture
def api(sparks: list[Stub]) -> Iterator[Gateway]:
    with gateway(servers=behind(sparks), keys=KEYS) as made:
        yield made


@pytest.fixture
def server(api: Gateway, capsys: pytest.CaptureFixture[str]) -> Any:
    """The module gateway_server on this gateway."""

    def call(**given: Any) -> dict[str, Any]:
        options = {"socket": str(api.master), "state_file": str(api.state_file), **given}
        with patch_module_args(options), pytest.raises(SystemExit):
            gateway_server.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return call


@contextmanager
def clients(api: Gateway, count: int = 8) -> Iterator[list[tuple[str, int]]]:
    """So many that stream all the time, each one stream after the other; who answered, and the tokens that came."""
    found: list[tuple[str, int]] = []
    over = threading.Event()

    def one() -> None:
        while not over.is_set():
            found.append(api.stream(TOKENS // 4))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join()


def lost(found: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return [each for each in found if each[1] != TOKENS // 4]


def started(api: Gateway, pool: ThreadPoolExecutor, session: str) -> tuple[str, Future[tuple[str, int]]]:
    """A stream at work, and the server that has it."""
    api.wait_until_idle()
    stream = pool.submit(api.stream, TOKENS, session)
    eventually(lambda: sum(api.sessions().values()) == 1, api)
    (key,) = (key for key, count in api.sessions().items() if count)
    return key.rpartition("/")[2], stream


def test_a_drain_lets_the_stream_end_and_sends_new_ones_elsewhere(api: Gateway, server: Any) -> None:
    with ThreadPoolExecutor() as pool:
        name, stream = started(api, pool, "one")
        drain = pool.submit(server, name=name, state="drained")
        eventually(lambda: f"{name} enters drain" in api.log, api)
        assert not stream.done()
        others = {api.stream(1, "one")[0] for _ in range(3)}
        assert name not in others
        result = drain.result()
        assert stream.result() == (name, TOKENS)
    assert (result["changed"], result["idle"]) == (True, True)
    assert 0 < result["waited"] < TOKENS * PAUSE * 5
    assert server(name=name, state="ready")["changed"] is True
    eventually(lambda: api.stream(1, "one")[0] == name, api)


def test_a_drain_waits_for_a_worker_that_a_reload_has_replaced(api: Gateway, server: Any) -> None:
    with ThreadPoolExecutor() as pool:
        name, stream = started(api, pool, "one")
        api.reload()
        assert api.sessions()[f"chat/{name}"] == 0
        seen = server(name=name)
        assert (seen["idle"], seen["servers"][0]["sessions"]) == (False, 1)
        result = server(name=name, state="drained")
        assert stream.result() == (name, TOKENS)
    assert result["idle"] is True
    assert result["waited"] > 0


@pytest.mark.parametrize("how", ["reload", "restart"])
def test_what_is_drained_stays_so(api: Gateway, server: Any, how: str) -> None:
    server(name="s2", state="drained")
    if how == "reload":
        api.reload()
    else:
        api.stop()
        api.start()
    assert [each["state"] for each in server(name="s2")["servers"]] == ["drained"]
    assert {api.stream(1)[0] for _ in range(12)} == {"s1", "s3"}


def test_the_last_one_of_a_pool_is_not_drained(api: Gateway, server: Any) -> None:
    server(name="s1", state="drained")
    server(name="s2", state="drained")
    assert server(name="s3", state="drained")["outage"] == ["chat"]
    assert api.stream(1)[0] == "s3"


def test_reloads_and_drains_under_load_lose_nothing(api: Gateway, server: Any, sparks: list[Stub]) -> None:
    with clients(api) as found:
        for spark in sparks:
            assert server(name=spark.name, state="drained")["idle"] is True
            # Now it could be anything else, and is.
            spark.stop()
            api.reload()
            spark.start()
            assert server(name=spark.name, state="ready")["changed"] is True
            api.reload()
    assert len(found) > 30
    assert lost(found) == []


def test_a_new_set_of_files_loses_nothing_and_a_broken_one_is_refused(
    api: Gateway, sparks: list[Stub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """With the module gateway_config, and a systemctl that reloads this HAProxy."""
    assert api.process
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\n[ "$1" = reload ] && kill -USR2 {api.process.pid}\nexit 0\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sets = api.folder / "sets"

    def call(files: dict[str, str]) -> dict[str, Any]:
        options = {
            "directory": str(sets),
            "files": files,
            "group": grp.getgrgid(os.getegid()).gr_name,
            "program": PROGRAM,
            "socket": str(api.master),
        }
        with patch_module_args(options), pytest.raises(SystemExit):
            gateway_config.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    def files(keys: list[dict[str, Any]]) -> dict[str, str]:
        return rendered(
            api.folder, servers=behind(sparks), keys=keys, addresses=["127.0.0.1"], port=api.port, tls=False
        )

    assert call(files(KEYS))["reloaded"] is True
    api.stop()
    api.config = sets / "haproxy.cfg"
    api.start()
    systemctl.write_text(f'#!/bin/sh\n[ "$1" = reload ] && kill -USR2 {api.process.pid}\nexit 0\n')
    with clients(api, 4) as found:
        assert api.chat(key=OTHER_KEY).status == 200
        assert call(files(KEYS[:1]))["changed_files"] == ["keys.map"]
        assert api.chat(key=OTHER_KEY).status == 401
        broken = files(KEYS)
        broken["haproxy.cfg"] += "    no such keyword\n"
        refused = call(broken)
        assert "expected a configuration that HAProxy accepts" in refused["msg"]
        assert "no such keyword" in refused["msg"] or "unknown keyword" in refused["msg"]
        assert api.chat(key=OTHER_KEY).status == 401
        assert call(files(KEYS[:1]))["changed"] is False
    assert len(found) >= 4
    assert lost(found) == []


def test_a_key_is_taken_away_at_run_time(api: Gateway) -> None:
    assert api.chat(key=OTHER_KEY).status == 200
    workers = api.workers()
    digest = hashlib.sha256(OTHER_KEY.encode()).hexdigest()
    with ThreadPoolExecutor() as pool:
        _, stream = started(api, pool, "one")
        assert api.ask(f"@1 del map keys.map {digest}").strip() == ""
        answer = api.chat(key=OTHER_KEY)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert api.chat(key=KEY).status == 200
        assert api.ask(f"@1 add map keys.map {digest} bob:-:5:100").strip() == ""
        assert api.chat(key=OTHER_KEY).status == 200
        assert stream.result()[1] == TOKENS
    assert api.workers() == workers


def test_a_client_that_reads_slowly_gets_all_of_it(api: Gateway) -> None:
    connection = api.connect()
    asked = {"model": "chat", "stream": True, "max_tokens": TOKENS}
    connection.request("POST", "/v1/chat/completions", json.dumps(asked), {"authorization": f"Bearer {KEY}"})
    answer = connection.getresponse()
    time.sleep(TOKENS * PAUSE * 1.2)
    assert answer.read().endswith(b"data: [DONE]\n\n")
    connection.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem -days 2 "
        "-subj /CN=gateway -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


def context(
    certificate: Path, change: Callable[[ssl.SSLContext], None] = lambda made: None
) -> ssl.SSLContext:
    """Of a client that would take HTTP/2."""
    made = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    made.set_alpn_protocols(["h2", "http/1.1"])
    change(made)
    return made


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_has_the_versions_that_mozilla_calls_intermediate(sparks: list[Stub], certificate: Path) -> None:
    pem = (certificate / "cert.pem").read_text() + (certificate / "key.pem").read_text()
    with gateway(servers=behind(sparks), keys=KEYS, tls=True, files={"tls.pem": pem}) as api:
        api.context = context(certificate)
        assert api.chat().status == 200
        assert api.chat("x" * 1_000_000, key="sk-none").status == 401

        def two(made: ssl.SSLContext) -> None:
            made.maximum_version = ssl.TLSVersion.TLSv1_2

        api.context = context(certificate, two)
        assert api.chat().status == 200

        def old(made: ssl.SSLContext) -> None:
            made.minimum_version = ssl.TLSVersion.TLSv1
            made.maximum_version = ssl.TLSVersion.TLSv1_1
            made.set_ciphers("ALL:@SECLEVEL=0")

        api.context = context(certificate, old)
        with pytest.raises(ssl.SSLError, match="(?i)version|alert"):
            api.chat()

        def weak(made: ssl.SSLContext) -> None:
            made.maximum_version = ssl.TLSVersion.TLSv1_2
            made.set_ciphers("ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")

        api.context = context(certificate, weak)
        with pytest.raises(ssl.SSLError, match="(?i)handshake"):
            api.chat()
