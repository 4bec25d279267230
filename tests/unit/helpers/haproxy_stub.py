"""A stand-in for the socket of HAProxy's master: workers with servers, and what was said to them."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ADMIN = {"ready": "0", "drain": "8", "maint": "1"}


@dataclass
class StubServer:
    state: str = "ready"
    status: str = "UP"
    sessions: int = 0

    @property
    def shown(self) -> str:
        return "DRAIN" if (self.state, self.status) == ("drain", "UP") else self.status


@dataclass
class Master:
    """`workers`: by pid, the current one first, each with its servers by pool/name."""

    workers: dict[str, dict[str, StubServer]]
    socket: str = ""
    asked: list[str] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)
    """In place of its own, by the command."""
    before: Callable[[str], object] = lambda command: None
    """What happens before a command is answered."""

    def answer(self, command: str) -> bytes:
        self.before(command)
        self.asked.append(command)
        if command in self.answers:
            return self.answers[command]
        if command == "show proc":
            return self._processes().encode()
        pid, _, rest = command.removeprefix("@!").partition(" ")
        if pid not in self.workers:
            return f"Can't find the target PID matching the prefix '@!{pid}'\n".encode()
        return self._of(self.workers[pid], rest).encode()

    def _processes(self) -> str:
        current, *former = self.workers
        lines = [
            "#<PID> <type> <reloads> <uptime> <version>",
            "1 master 1 [failed: 0] 0d00h01m15s 2.6.12",
            "# workers",
        ]
        lines += [f"{current} worker 0 0d00h00m02s 2.6.12", "# old workers"]
        lines += [f"{pid} worker 1 0d00h01m14s 2.6.12" for pid in former]
        return "\n".join([*lines, "# programs", "", ""])

    def _of(self, servers: dict[str, StubServer], command: str) -> str:
        if command == "show servers state":
            rows = [
                f"3 {key.replace('/', ' 7 ')} 192.0.2.1 2 {ADMIN[each.state]} 1 1 60 15 0 4 7 0 0 1 - 8000 - 0 0 - - 0"
                for key, each in servers.items()
            ]
            return "\n".join(
                ["1", "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state", *rows, "", ""]
            )
        if command.startswith("show stat "):
            rows = [
                f"{key.replace('/', ',')},0,0,{each.sessions},4,{each.shown},1,"
                for key, each in servers.items()
            ]
            return "\n".join(["# pxname,svname,qcur,qmax,scur,smax,status,weight,", *rows, "", ""])
        _set, _server, key, _state, state = command.split()
        if key not in servers:
            return "No such server.\n\n"
        servers[key].state = state
        return "\n"


@contextlib.contextmanager
def serving(master: Master) -> Iterator[Master]:
    """With a socket that answers. The path of one is short."""
    with tempfile.TemporaryDirectory(prefix="hp-") as folder, socket.socket(socket.AF_UNIX) as listening:
        master.socket = str(Path(folder) / "m")
        listening.bind(master.socket)
        listening.listen(64)
        thread = threading.Thread(target=_answer_all, args=(listening, master), daemon=True)
        thread.start()
        yield master
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def _answer_all(listening: socket.socket, master: Master) -> None:
    while True:
        try:
            asked, _ = listening.accept()
        except OSError:
            return
        with asked, contextlib.suppress(OSError):
            command = asked.makefile("rb").read().decode().strip()
            asked.sendall(master.answer(command))
