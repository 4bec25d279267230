# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container of the local Docker engine, as the gate asks it."""

from __future__ import annotations

import io
import os
import tarfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._common.inspected import CONTAINER, unfit
from .._common.secrets import is_secret, mask
from .container import (
    LONGEST_LINE,
    FileSeen,
    LogLine,
    State,
    bounded,
    digest,
    parse_time,
    read_file,
    resolve_in_root,
)

try:
    import docker
    import docker.errors

    DOCKER_IMPORT_ERROR: str | None = None
except ImportError:
    DOCKER_IMPORT_ERROR = traceback.format_exc()


LONGEST_DEVICES = 500
"""Characters of a list of RDMA devices that are shown."""


class EngineError(Exception):
    """The Docker engine could not be asked."""


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
        if said := unfit(self._name, data, CONTAINER):
            raise EngineError(said)
        if not _is_time(data["State"]["StartedAt"]):
            raise EngineError(
                f"the engine says that {self._name} was started at {data['State']['StartedAt']!r:.60}"
            )
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
        # Split at newlines alone: the engine stamps the text after each, and a progress bar has carriage returns within a line.
        for line in raw.decode("utf-8", "replace").split("\n"):
            time, _sep, text = line.partition(" ")
            if _is_time(time):  # other lines have no stamp of the engine
                shown = mask(text.rstrip("\r").rpartition("\r")[2], self._secrets)
                lines.append(LogLine(time, shown[:LONGEST_LINE]))
        return lines

    def file(self, state: State, path: str) -> FileSeen:
        root = self._proc / str(state.pid) / "root"
        # Only root may look into another user's process, and an ended process has no root directory.
        if not state.pid or not os.access(root, os.X_OK):
            return self._archived(path)
        try:
            return read_file(resolve_in_root(root, path))
        except OSError as error:
            return FileSeen(error=error.strerror or str(error))

    def _archived(self, path: str) -> FileSeen:
        """A file from the engine: of an ended process, or one that only root may see. Without age."""
        try:
            chunks, _status = self._api.get_archive(self._name, path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(bounded(chunks)))) as archive:
                member = archive.next()
                stream = archive.extractfile(member) if member and member.isreg() else None
                return digest([stream.read()]) if stream else FileSeen(error="not a plain file")
        except docker.errors.NotFound:
            return FileSeen(error="no such file")
        except (docker.errors.DockerException, OSError, tarfile.TarError, KeyError) as error:
            return FileSeen(error=str(error))

    def host_file(self, path: str) -> FileSeen:
        return read_file(Path(path))


def _is_time(text: str) -> bool:
    try:
        parse_time(text)
    except ValueError:
        return False
    return True


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
        mounts={mount["Destination"]: mount.get("Source") or "" for mount in data.get("Mounts") or []},
        rdma=_rdma(dict(entry.partition("=")[::2] for entry in data["Config"].get("Env") or [])),
    )


def _rdma(environment: Mapping[str, str]) -> str:
    off = environment.get("NCCL_IB_DISABLE", "0") not in ("", "0") or environment.get("NCCL_NET") == "Socket"
    return "" if off else environment.get("NCCL_IB_HCA", "")[:LONGEST_DEVICES]
