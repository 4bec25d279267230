"""Servers in a thread of the test."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, TypeVar

Server = TypeVar("Server", bound=socketserver.BaseServer)


class Handler(BaseHTTPRequestHandler):
    """Answers in one go, and logs nothing."""

    def log_message(self, *_args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", cut: int | None = None, **headers: str) -> None:
        """:param cut: bytes after which the connection breaks off"""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


class UnixServer(socketserver.ThreadingUnixStreamServer):
    """As the Docker engine listens."""

    daemon_threads = True


@contextlib.contextmanager
def served(server: Server) -> Iterator[Server]:
    """It answers until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
