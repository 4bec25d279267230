"""What HAProxy asks beside a server: the agent of a Spark's watchdog, as far as a gateway sees it."""

from __future__ import annotations

import contextlib
import socket
import threading


class Agent:
    """Says `word` to whoever connects, and ends the connection. Nothing for an empty word."""

    def __init__(self, word: str = "up") -> None:
        self.word = word
        self.asked = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                asked, _ = self._socket.accept()
            except OSError:
                return
            with asked:
                if self.word:
                    asked.sendall(f"{self.word}\n".encode())
            self.asked += 1

    def stop(self) -> None:
        """Its port is closed from now on."""
        with contextlib.suppress(OSError):  # it is closed already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
