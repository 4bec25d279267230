# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One container as the gate sees it: its state, its log, and files as its process sees them. Reads only."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Protocol

try:
    import docker
    import docker.errors

    DOCKER_IMPORT_ERROR: str | None = None
except ImportError:
    DOCKER_IMPORT_ERROR = traceback.format_exc()

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"hf_[A-Za-z0-9]{16,}")
_MAX_LINKS = 40
LONGEST_LINE = 16 * 1024
"""Characters of a log line that are read. Docker's own drivers cut a message there, and then join the pieces."""


class EngineError(Exception):
    """The Docker engine could not be asked."""


@dataclass(frozen=True)
class State:
    """One look at a container. `id` and `started_at` together name one life of one server process."""

    id: str
    status: str
    """created, running, paused, restarting, removing, exited or dead"""
    started_at: str
    """RFC 3339, as the engine gives it"""
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    restarts: int = 0
    image: str = ""
    """As it was asked for, by digest where that was pinned"""
    argv: tuple[str, ...] = ()
    mounts: Mapping[str, str] = field(default_factory=dict)
    """Path in the container -> source on the host"""

    @property
    def started(self) -> float:
        """Unix time of the start."""
        return parse_time(self.started_at)


@dataclass(frozen=True)
class FileSeen:
    """A file's content and age, or why there is none. `changed` is its ctime: copying cannot set it back."""

    md5: str | None = None
    sha256: str | None = None
    changed: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class LogLine:
    time: str
    """RFC 3339 with nanoseconds: sorts as text"""
    text: str


class Container(Protocol):
    """What the gate asks of a container; DockerContainer answers it, and so do the tests."""

    def inspect(self) -> State | None:
        """The state now; None when there is no such container."""

    def log(self, since: float, until: float | None = None, tail: int | None = None) -> Sequence[LogLine]:
        """Log lines of the container between two Unix times, secrets masked."""

    def file(self, state: State, path: str) -> FileSeen:
        """A file as the running process sees it, mounts and all."""

    def host_file(self, path: str) -> FileSeen:
        """A file of the host."""


def parse_time(text: str) -> float:
    """Unix time of an RFC 3339 time with up to nine digits of a second.

    >>> parse_time("1970-01-01T00:00:01.250000000Z")
    1.25
    """
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$", text)
    if not match:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    zone = "+00:00" if match[3] == "Z" else match[3]
    whole = datetime.fromisoformat(match[1] + zone).astimezone(timezone.utc).timestamp()
    return whole + float(match[2] or 0)


def is_secret(name: str) -> bool:
    """Whether a variable of that name holds what must not be shown."""
    return bool(_SECRET_NAME.search(name))


def mask(text: str, secrets: Sequence[str]) -> str:
    """`text` without the given secrets and without anything that looks like a Hub token."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _HUB_TOKEN.sub("hf_***", text)


def resolve_in_root(root: Path, path: str) -> Path:
    """The file that `path` means to a process whose root directory is `root`.

    Opening root/path would follow an absolute link out of the root, into the host's files.

    :raises OSError: a link or directory on the way cannot be read, or links form a loop
    """
    pending = [part for part in path.split("/") if part]
    reached: list[str] = []
    links = 0
    while pending:
        part = pending.pop(0)
        if part == ".":
            continue
        if part == "..":
            reached = reached[:-1]
            continue
        step = root.joinpath(*reached, part)
        if step.is_symlink():
            links += 1
            if links > _MAX_LINKS:
                raise OSError(f"too many links in {path}")
            target = str(step.readlink())
            pending[:0] = [piece for piece in target.split("/") if piece]
            if target.startswith("/"):
                reached = []
        else:
            reached.append(part)
    return root.joinpath(*reached)


def digest(stream: IO[bytes], changed: float | None = None) -> FileSeen:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    while block := stream.read(1 << 20):
        md5.update(block)
        sha256.update(block)
    return FileSeen(md5.hexdigest(), sha256.hexdigest(), changed)


def read_file(path: Path) -> FileSeen:
    try:
        with path.open("rb") as stream:
            return digest(stream, os.fstat(stream.fileno()).st_ctime)
    except FileNotFoundError:
        return FileSeen(error="no such file")
    except IsADirectoryError:
        return FileSeen(error="a directory, not a file")
    except OSError as error:
        return FileSeen(error=error.strerror or str(error))


class DockerContainer:
    """A container of the local Docker engine, by name."""

    def __init__(self, name: str, secrets: Sequence[str] = (), proc: Path = Path("/proc")) -> None:
        self._name = name
        self._secrets = [secret for secret in secrets if secret]
        self._proc = proc
        try:
            self._api = docker.from_env(timeout=60).api
        except docker.errors.DockerException as error:
            raise EngineError(f"the Docker engine does not answer: {error}") from error

    def inspect(self) -> State | None:
        try:
            data = self._api.inspect_container(self._name)
        except docker.errors.NotFound:
            return None
        except (docker.errors.DockerException, OSError) as error:
            raise EngineError(f"the Docker engine does not answer: {error}") from error
        for entry in data["Config"].get("Env") or []:
            name, _sep, value = entry.partition("=")
            if is_secret(name) and len(value) >= 8 and value not in self._secrets:
                self._secrets.append(value)
        return _state(data)

    def log(self, since: float, until: float | None = None, tail: int | None = None) -> Sequence[LogLine]:
        options: dict[str, Any] = {"since": since, "tail": "all" if tail is None else tail}
        if until is not None:
            options["until"] = until
        try:
            raw = self._api.logs(self._name, stdout=True, stderr=True, timestamps=True, **options)
        except (docker.errors.DockerException, OSError):
            return []  # a removed container, or a log driver that cannot be read
        lines = []
        # Split at newlines alone: the engine stamps those, and a progress bar has carriage returns within a line.
        for line in raw.decode("utf-8", "replace").split("\n"):
            time, _sep, text = line.partition(" ")
            if time:
                shown = mask(text.rstrip("\r").rpartition("\r")[2], self._secrets)
                lines.append(LogLine(time, shown[:LONGEST_LINE]))
        return lines

    def file(self, state: State, path: str) -> FileSeen:
        root = self._proc / str(state.pid) / "root"
        # Only root may look into another user's process, and one that has ended has no root.
        if not state.pid or not os.access(root, os.X_OK):
            return self._archived(path)
        try:
            return read_file(resolve_in_root(root, path))
        except OSError as error:
            return FileSeen(error=error.strerror or str(error))

    def _archived(self, path: str) -> FileSeen:
        """From the engine: for a process that has ended, or one whose files only root may see. Without age."""
        try:
            chunks, _status = self._api.get_archive(self._name, path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                member = archive.next()
                stream = archive.extractfile(member) if member else None
                return digest(stream) if stream else FileSeen(error="not a plain file")
        except docker.errors.NotFound:
            return FileSeen(error="no such file")
        except (docker.errors.DockerException, OSError, tarfile.TarError, KeyError) as error:
            return FileSeen(error=str(error))

    def host_file(self, path: str) -> FileSeen:
        return read_file(Path(path))


class NoContainer:
    """In place of a container, for a server that is none of this host: always there, and it tells nothing."""

    def inspect(self) -> State:
        return State(id="", status="running", started_at="1970-01-01T00:00:00Z")

    def log(self, since: float, until: float | None = None, tail: int | None = None) -> Sequence[LogLine]:
        return []

    def file(self, state: State, path: str) -> FileSeen:
        return FileSeen(error="no container to look into")

    def host_file(self, path: str) -> FileSeen:
        return read_file(Path(path))


def _state(data: Mapping[str, Any]) -> State:
    state = data["State"]
    return State(
        id=data["Id"],
        status=state["Status"],
        started_at=state["StartedAt"],
        pid=state.get("Pid") or 0,
        exit_code=state.get("ExitCode") or 0,
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error") or "",
        restarts=data.get("RestartCount") or 0,
        image=data["Config"]["Image"],
        argv=(data.get("Path") or "", *(data.get("Args") or [])),
        mounts={mount["Destination"]: mount.get("Source", "") for mount in data.get("Mounts") or []},
    )
