#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A minimal Hugging Face Hub over a directory. Standard library only.

    hub.py --root DIR [--host 0.0.0.0] [--port 8090]

Layout of DIR, read at every request, so files can be added while it runs:

    <org>/<name>/<files>       one model repository, as it is at its one commit
    <org>/<name>/.hub.json     optional, every key optional:
        commit    40 hex digits; default: a digest of the contents, so it changes with them
        refs      {branch or tag: commit}; default {"main": commit}
        gated     true: files need a token (default false)
        tokens    tokens that may read a gated repository
        redirect  true: large files answer 302 to another path, as the Hub does to its CDN (default false)
    .hub-faults.json           optional: faults to inject, below
    .hub-requests.jsonl        written: one line a request

Only the repository's own commit can be read; a ref that names another one is an unknown revision.

Served, with the headers huggingface_hub looks at:

    GET       /api/models/{id}[/revision/{rev}]              ?blobs=true adds size and hashes
    GET       /api/models/{id}/tree/{rev}[/{folder}]         ?recursive=true&limit=&cursor=; Link: rel="next"
    GET|HEAD  /{id}/resolve/{rev}/{path}                     ETag, X-Repo-Commit, X-Linked-*, Range -> 206
    GET       /healthz

A file is "LFS" (its oid is a sha256) when it is a weight or archive by its suffix, is larger than 10 MiB,
or has a NUL byte in its first 8000; any other has the git blob sha1. Hashes are cached by size, mtime, inode.

Errors as the Hub makes them: unknown repository 401 (anonymous) or 404 with X-Error-Code RepoNotFound,
404 RevisionNotFound, 404 EntryNotFound, gated 401 (anonymous) or 403 (token without access) with GatedRepo,
and 401 for a token that does not start with `hf_`. As on the Hub, a gated repository's metadata is public.

.hub-faults.json is a list of rules. The first rule that matches and has `times` left acts:

    match        regular expression, searched in "METHOD /path"
    times        how often it acts (default: always)
    kind         status    answer `status` (default 500), with Retry-After when `retry_after` is given
                 truncate  full Content-Length, but the connection closes after `after` bytes (default: half)
                 corrupt   right size, one byte changed
                 slow      `bytes_per_second` (default 65536)
                 reset     close the connection without an answer

Counts start again when the file changes. A request line: {"time", "method", "path", "query", "status",
"range", "bytes", "token" (was one sent), "fault"}.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

SIDECAR = ".hub.json"
FAULTS = ".hub-faults.json"
REQUESTS = ".hub-requests.jsonl"
LFS_SUFFIXES = frozenset(
    {".bin", ".gguf", ".gz", ".h5", ".model", ".onnx", ".pt", ".pth", ".safetensors", ".zip"}
)
LFS_SIZE = 10 * 1024 * 1024
BLOCK = 1024 * 1024
PAGE = 1000


@dataclass(frozen=True)
class Blob:
    """One file as the Hub describes it."""

    path: str
    size: int
    git_sha1: str
    sha256: str
    lfs: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_sha1

    def tree_entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "oid": self.git_sha1, "size": self.size, "path": self.path}
        if self.lfs:
            spec = "https://git-lfs.github.com/spec/v1"
            pointer = f"version {spec}\noid sha256:{self.sha256}\nsize {self.size}\n".encode()
            # git itself stores the pointer, so the git oid of an LFS file is the pointer's
            entry["oid"] = git_blob_sha1(pointer)
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": len(pointer)}
        return entry


def git_blob_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class HubError(Exception):
    """An error answer: status, X-Error-Code (or None), message."""

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Repository:
    """One directory <org>/<name>."""

    def __init__(self, hub: Hub, repo_id: str) -> None:
        self.hub, self.id, self.directory = hub, repo_id, hub.root / repo_id
        sidecar = self.directory / SIDECAR
        about = json.loads(sidecar.read_text()) if sidecar.is_file() else {}
        self.gated = bool(about.get("gated", False))
        self.tokens = set(about.get("tokens", []))
        self.redirect = bool(about.get("redirect", False))
        self.commit = str(about.get("commit") or self._digest())
        self.refs = {"main": self.commit, **about.get("refs", {})}

    def _names(self) -> Iterator[str]:
        for folder, subfolders, files in os.walk(self.directory):
            subfolders.sort()
            for name in sorted(files):
                path = Path(folder, name)
                if path != self.directory / SIDECAR:
                    yield path.relative_to(self.directory).as_posix()

    def _digest(self) -> str:
        lines = (f"{blob.path} {blob.sha256}\n" for blob in self.blobs())
        return hashlib.sha1("".join(lines).encode()).hexdigest()

    def blobs(self) -> list[Blob]:
        return [self.hub.blob(self.directory, name) for name in self._names()]

    def check_revision(self, revision: str) -> None:
        if self.refs.get(revision, revision) != self.commit:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def check_access(self, token: str | None) -> None:
        if self.gated and token is None:
            raise HubError(401, "GatedRepo", f"Access to model {self.id} is restricted: log in")
        if self.gated and token not in self.tokens:
            raise HubError(403, "GatedRepo", f"Access to model {self.id} is restricted: ask for access")

    def file(self, name: str) -> Blob:
        parts = name.split("/")
        if name == SIDECAR or ".." in parts or "" in parts or not (self.directory / name).is_file():
            raise HubError(404, "EntryNotFound", "Entry not found")
        return self.hub.blob(self.directory, name)

    def info(self, blobs: bool) -> dict[str, Any]:
        siblings = []
        for blob in self.blobs():
            entry = blob.tree_entry()
            sibling: dict[str, Any] = {"rfilename": blob.path}
            if blobs:
                sibling |= {"size": blob.size, "blobId": entry["oid"]}
                if blob.lfs:
                    lfs = entry["lfs"]
                    sibling["lfs"] = {
                        "sha256": lfs["oid"],
                        **{key: lfs[key] for key in ("size", "pointerSize")},
                    }
            siblings.append(sibling)
        return {
            "_id": hashlib.sha1(self.id.encode()).hexdigest()[:24],
            "id": self.id,
            "modelId": self.id,
            "author": self.id.split("/")[0],
            "sha": self.commit,
            "private": False,
            "gated": "manual" if self.gated else False,
            "disabled": False,
            "tags": [],
            "siblings": siblings,
        }

    def tree(self, folder: str, recursive: bool) -> list[dict[str, Any]]:
        prefix = f"{folder}/" if folder else ""
        folders: set[str] = set()
        entries: list[dict[str, Any]] = []
        for blob in self.blobs():
            if not blob.path.startswith(prefix):
                continue
            inside = blob.path[len(prefix) :].split("/")
            depth = len(inside) - 1 if recursive else min(1, len(inside) - 1)
            folders.update(prefix + "/".join(inside[: level + 1]) for level in range(depth))
            if recursive or len(inside) == 1:
                entries.append(blob.tree_entry())
        if folder and not entries and not folders:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist on this revision")
        for path in folders:
            oid = hashlib.sha1(path.encode()).hexdigest()
            entries.append({"type": "directory", "oid": oid, "size": 0, "path": path})
        return sorted(entries, key=lambda entry: str(entry["path"]))


class Hub(ThreadingHTTPServer):
    """The server. Tests run `serve_forever` in a thread."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, root: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._answering = 0
        self._hashes: dict[Path, tuple[tuple[int, int, int], Blob]] = {}
        self._faults: tuple[int, list[dict[str, Any]], list[int]] = (0, [], [])
        super().__init__((host, port), Handler)

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that goes away: that is no error of the server."""

    def repository(self, repo_id: str, token: str | None) -> Repository:
        if token is not None and not token.startswith("hf_"):
            raise HubError(401, None, "Invalid credentials in Authorization header")
        org, _, name = repo_id.partition("/")
        if {org, name} & {"", ".", ".."} or not (self.root / org / name).is_dir():
            raise HubError(401 if token is None else 404, "RepoNotFound", "Repository not found")
        return Repository(self, repo_id)

    def blob(self, directory: Path, name: str) -> Blob:
        path = directory / name
        stat = path.stat()
        signature = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        cached = self._hashes.get(path)
        if cached is None or cached[0] != signature:
            sha1, sha256, head = hashlib.sha1(b"blob %d\0" % stat.st_size), hashlib.sha256(), b""
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    head = head or block[:8000]
                    sha1.update(block)
                    sha256.update(block)
            lfs = path.suffix in LFS_SUFFIXES or stat.st_size > LFS_SIZE or b"\0" in head
            cached = (signature, Blob(name, stat.st_size, sha1.hexdigest(), sha256.hexdigest(), lfs))
            self._hashes[path] = cached
        return cached[1]

    def fault(self, request: str) -> dict[str, Any] | None:
        """The fault to inject into `METHOD /path`, counted."""
        path = self.root / FAULTS
        with self._lock:
            try:
                changed = path.stat().st_mtime_ns
            except FileNotFoundError:
                return None
            if changed != self._faults[0]:
                rules = json.loads(path.read_text())
                self._faults = (changed, rules, [0] * len(rules))
            _, rules, used = self._faults
            for index, rule in enumerate(rules):
                if re.search(rule["match"], request) and used[index] < rule.get("times", used[index] + 1):
                    used[index] += 1
                    return dict(rule)
        return None

    def begin(self) -> None:
        with self._lock:
            self._answering += 1

    def record(self, **line: Any) -> None:
        with self._lock:
            with (self.root / REQUESTS).open("a") as log:
                log.write(json.dumps({"time": round(time.time(), 3), **line}) + "\n")
            self._answering -= 1
            self._idle.notify_all()

    def wait_idle(self, timeout: float = 10.0) -> None:
        """Wait until the log has every request whose answer a client has seen."""
        with self._lock:
            self._idle.wait_for(lambda: not self._answering, timeout)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "minimal-hub"
    timeout = 60
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: requests go to the request log."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.begin()
        url = urlsplit(self.path)
        self._sent, self._status = 0, 0
        self._fault = self.server.fault(f"{self.command} {unquote(url.path)}")
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        self._token = token if scheme.lower() == "bearer" and token else None
        kind = self._fault["kind"] if self._fault else None
        try:
            if kind == "reset":
                self.close_connection = True
            elif kind == "status" and self._fault is not None:
                retry = self._fault.get("retry_after")
                headers = {"Retry-After": str(retry)} if retry is not None else {}
                self._send_json(int(self._fault.get("status", 500)), {"error": "injected fault"}, headers)
            else:
                self._route(url.path, {key: values[-1] for key, values in parse_qs(url.query).items()})
        except HubError as error:
            headers = {"X-Error-Message": error.message}
            if error.code:
                headers["X-Error-Code"] = error.code
            self._send_json(error.status, {"error": error.message}, headers)
        except ConnectionError:
            self.close_connection = True
        finally:
            self.server.record(
                method=self.command,
                path=unquote(url.path),
                query=url.query,
                status=self._status,
                range=self.headers.get("Range"),
                bytes=self._sent,
                token=self._token is not None,
                fault=kind,
            )

    def _route(self, path: str, query: dict[str, str]) -> None:
        if path == "/healthz":
            return self._send_json(200, {"status": "ok"})
        # {org}/{name}/resolve/{rev}/{path}: a revision may hold an escaped slash, so split before unquoting
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            repository = self.server.repository(unquote("/".join(parts[2:4])), self._token)
            what, revision = (parts[4:5] or ["revision"])[0], unquote((parts[5:6] or ["main"])[0])
            if what == "revision" and len(parts) <= 6:
                repository.check_revision(revision)
                return self._send_json(200, repository.info(query.get("blobs", "").lower() == "true"))
            if what == "tree":
                repository.check_revision(revision)
                return self._send_tree(path, query, repository, unquote("/".join(parts[6:])).strip("/"))
        elif len(parts) >= 5 and parts[2] in ("resolve", "cdn"):
            repository = self.server.repository(unquote("/".join(parts[:2])), self._token)
            repository.check_revision(unquote(parts[3]))
            repository.check_access(self._token)
            return self._send_file(repository, unquote("/".join(parts[4:])), parts[2] == "resolve")
        raise HubError(404, None, f"Not found: {path}")

    def _send_tree(self, path: str, query: dict[str, str], repository: Repository, folder: str) -> None:
        entries = repository.tree(folder, query.get("recursive", "").lower() == "true")
        limit, start = min(int(query.get("limit", PAGE)), PAGE), int(query.get("cursor", 0))
        headers = {}
        if start + limit < len(entries):
            host = self.headers.get("Host", "localhost")
            recursive = query.get("recursive", "false")
            after = f"http://{host}{path}?recursive={recursive}&limit={limit}&cursor={start + limit}"
            headers["Link"] = f'<{after}>; rel="next"'
        self._send_json(200, entries[start : start + limit], headers)

    def _send_file(self, repository: Repository, name: str, resolve: bool) -> None:
        blob = repository.file(name)
        headers = {
            "ETag": f'"{blob.etag}"',
            "X-Repo-Commit": repository.commit,
            "X-Linked-Size": str(blob.size),
            "X-Linked-Etag": f'"{blob.etag}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream" if blob.lfs else "text/plain; charset=utf-8",
        }
        if blob.lfs and repository.redirect and resolve:
            location = f"/{repository.id}/cdn/{repository.commit}/{quote(name)}"
            return self._send_json(302, {}, headers | {"Location": location})
        start, end, status = 0, blob.size, 200
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked and any(asked.groups()):
            first, last = asked.groups()
            start = int(first) if first else max(0, blob.size - int(last))
            end = min(blob.size, int(last) + 1) if first and last else blob.size
            status = 206
            if start >= end:
                return self._send_json(416, {}, {"Content-Range": f"bytes */{blob.size}"})
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
        self._status = status
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(end - start)}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._send_body(repository.directory / name, start, end)
        return None

    def _send_body(self, path: Path, start: int, end: int) -> None:
        fault = self._fault or {}
        kind = fault.get("kind")
        rate = int(fault.get("bytes_per_second", 65536)) if kind == "slow" else 0
        block = max(1, rate // 20) if rate else BLOCK
        stop = min(end, start + int(fault.get("after", (end - start) // 2))) if kind == "truncate" else end
        spoil = start + (end - start) // 2 if kind == "corrupt" else -1
        with path.open("rb") as file:
            file.seek(start)
            position = start
            while position < stop and (data := file.read(min(block, stop - position))):
                if position <= spoil < position + len(data):
                    at = spoil - position
                    data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
                self.wfile.write(data)
                position += len(data)
                self._sent += len(data)
                if rate:
                    time.sleep(len(data) / rate)
        if position < end:
            self.close_connection = True

    def _send_json(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(data).encode()
        self._status = status
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if not headers or "Content-Type" not in headers:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self._sent = len(body)


def main() -> None:
    parser = argparse.ArgumentParser(description="A minimal Hugging Face Hub over a directory.")
    parser.add_argument("--root", type=Path, required=True, help="directory of <org>/<name>/<files>")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8090)
    options = parser.parse_args()
    if not options.root.is_dir():
        parser.error(f"--root {options.root}: no such directory")
    hub = Hub(options.root.resolve(), options.host, options.port)
    print(f"Hub on {hub.url}, serving {hub.root}", flush=True)
    try:
        hub.serve_forever()
    except KeyboardInterrupt:
        hub.server_close()


if __name__ == "__main__":
    main()
