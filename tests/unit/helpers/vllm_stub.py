"""A stand-in for vLLM on a Spark: it answers at once, or streams tokens for as long as it was asked to."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAUSE = 0.02
"""Seconds between two tokens."""


@dataclass
class Stub:
    """One server. `seen` has a (path, headers, length of the body) for each request but those for its health."""

    name: str
    port: int = 0
    healthy: bool = True
    breaks: bool = False
    """Whether it ends each connection without an answer."""
    seen: list[tuple[str, dict[str, str], int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server: ThreadingHTTPServer | None = None
        self.start()

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Its port is closed from now on. Streams go on."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has gone."""


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer({}, 200 if stub.healthy else 503)

        def do_POST(self) -> None:
            body = self._body()
            if stub.breaks:
                self.close_connection = True
                return
            stub.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, len(body)))
            asked = json.loads(body)
            if asked.get("user") == "cut me":
                self._cut()
            elif asked.get("stream"):
                self._stream(asked["max_tokens"])
            else:
                time.sleep(asked.get("seconds", 0))
                self._answer({"server": stub.name})

        def _body(self) -> bytes:
            if "content-length" in self.headers:
                return self.rfile.read(int(self.headers["content-length"]))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _answer(self, content: Any, status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, tokens: int) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.send_header("x-server", stub.name)
            self.end_headers()
            for event in [*(f"token {number}" for number in range(tokens)), "[DONE]"]:
                self._chunk(f"data: {event}\n\n".encode())
                time.sleep(PAUSE)
            self._chunk(b"")

        def _cut(self) -> None:
            """End in the middle of an answer."""
            self.send_response(200)
            self.send_header("content-length", "100")
            self.end_headers()
            self.wfile.write(b"half of it")
            self.close_connection = True

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

    return Handler
