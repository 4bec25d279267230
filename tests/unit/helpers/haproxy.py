"""A real HAProxy with what the role gateway writes, on ports of loopback. It needs no root, and no Spark: see vllm_stub.py.

It is that of the machine where there is one, else the copy of the lab (molecule/lab/unpacked.sh).
"""

from __future__ import annotations

import contextlib
import csv
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway import plan
from helpers.gateway import KEY, inputs, server
from helpers.recipe import ROOT
from helpers.vllm_stub import Stub
from helpers.whole import needs

PROGRAM = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:{ROOT}/.cache/lab/haproxy")
needs_haproxy = needs("" if PROGRAM else "no haproxy here: install the distribution's, or make .unpacked")
TEMPLATES = ROOT / "roles/gateway/templates"
CHAT = "/v1/chat/completions"
PATIENCE = 10.0


def rendered(folder: Path, **given: Any) -> dict[str, str]:
    """The set of files, by name, for a HAProxy without root whose sockets and log lie in `folder`."""
    made = plan.plan(inputs(**given)).as_data()
    variables = {
        "ansible_managed": "managed",
        "__gateway_plan": made,
        "gateway_log": "stdout format raw",
        "gateway_chroot": "",
        "gateway_user": "",
        "__gateway_socket": str(folder / "admin.sock"),
        "__gateway_state_file": str(folder / "servers"),
    }
    templar = Templar(loader=DataLoader(), variables=variables)
    files = {
        name: str(templar.template(trust_as_template((TEMPLATES / f"{name}.j2").read_text())))
        for name in ("haproxy.cfg", "keys.map", "pools.map")
    }
    return files | {"models.json": json.dumps(made["models"])}


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        return found


@dataclass
class Gateway:
    folder: Path
    port: int
    context: ssl.SSLContext | None = None
    config: Path | None = None
    """Of HAProxy, where it is not in the folder."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def master(self) -> Path:
        return self.folder / "master.sock"

    @property
    def state_file(self) -> Path:
        return self.folder / "servers"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def write(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            (self.folder / name).write_text(content)

    def check(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(PROGRAM), "-c", "-f", str(self.folder / "haproxy.cfg")],
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(PROGRAM),
                    "-W",
                    "-S",
                    str(self.master),
                    "-f",
                    str(self.config or self.folder / "haproxy.cfg"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(lambda: self.workers() != [], self)

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)

    def reload(self) -> None:
        before = self.workers()
        assert self.process
        self.process.send_signal(signal.SIGUSR2)
        eventually(lambda: set(self.workers()) - set(before) != set(), self)

    def ask(self, command: str) -> str:
        """The master, or the worker that the command names: `@1 show info`."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(PATIENCE)
            asked.connect(str(self.master))
            asked.sendall(command.encode() + b"\n")
            asked.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: asked.recv(65536), b"")).decode()

    def workers(self) -> list[str]:
        with contextlib.suppress(OSError):
            rows = [line.split() for line in self.ask("show proc").splitlines()]
            return [row[0] for row in rows if row[1:2] == ["worker"]]
        return []

    def wait_until_idle(self) -> None:
        """A request counts for a moment after its client has the answer, and would be part of the load of the next one."""
        eventually(lambda: sum(self.sessions().values()) == 0, self)

    def sessions(self) -> dict[str, int]:
        """{pool/server: requests that it has now}, of the worker that takes new ones."""
        text = self.ask("@1 show stat -1 4 -1").strip().removeprefix("# ")
        return {
            f"{row['pxname']}/{row['svname']}": int(row["scur"]) for row in csv.DictReader(text.splitlines())
        }

    def connect(self) -> http.client.HTTPConnection:
        if self.context:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=self.context)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        key: str | None = KEY,
        chunked: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """:param body: bytes as they are, anything else as JSON"""
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        more = dict(headers or {})
        if key is not None:
            more["authorization"] = f"Bearer {key}"
        connection = self.connect()
        connection.connect()
        # Whoever is refused early has not read all. The answer is there all the same.
        with contextlib.suppress(OSError):
            parts = [sent[at : at + 65536] for at in range(0, len(sent), 65536)] if chunked and sent else sent
            connection.request(method, path, parts, more, encode_chunked=chunked)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, body)

    def chat(self, content: str = "hello", **given: Any) -> Answer:
        """Options of a chat, and `headers` or `key` of its request."""
        headers, key = given.pop("headers", None), given.pop("key", KEY)
        asked = {"messages": [{"role": "user", "content": content}], "model": "chat", **given}
        return self.request("POST", CHAT, asked, key, headers=headers)

    def stream(self, tokens: int, session: str = "") -> tuple[str, int]:
        """(who answered, tokens that came); -1 if the stream had no end."""
        asked = {"model": "chat", "stream": True, "max_tokens": tokens}
        headers = {"authorization": f"Bearer {KEY}", "x-session-id": session or os.urandom(8).hex()}
        connection = self.connect()
        connection.request("POST", CHAT, json.dumps(asked), headers)
        answer = connection.getresponse()
        try:
            text = answer.read().decode()
        except (http.client.HTTPException, OSError):
            text = ""
        connection.close()
        ended = answer.status == 200 and text.endswith("data: [DONE]\n\n")
        return answer.getheader("x-server", ""), text.count("data: token") if ended else -1


def eventually(true: Callable[[], bool], gateway: Gateway | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {PATIENCE:g} s\n{gateway.log if gateway else ''}")
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def behind(stubs: list[Stub], model: str = "chat", recipe: str = "first") -> list[dict[str, Any]]:
    return [
        server(each.name, model=model, recipe=recipe, address="127.0.0.1", port=each.port) for each in stubs
    ]


@contextlib.contextmanager
def stubs(*names: str) -> Iterator[list[Stub]]:
    made = [Stub(name) for name in names]
    try:
        yield made
    finally:
        for each in made:
            each.stop()


@contextlib.contextmanager
def gateway(files: Mapping[str, str] | None = None, **given: Any) -> Iterator[Gateway]:
    """A gateway of these inputs, at work.

    :param files: more of them, such as those with secrets
    """
    port = free_port()
    # The path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        made = Gateway(Path(folder), port)
        made.state_file.write_text("1\n")
        made.write(rendered(made.folder, **{"addresses": ["127.0.0.1"], "port": port, "tls": False} | given))
        made.write(files or {})
        made.start()
        try:
            yield made
        finally:
            made.stop()
