"""A registry and a raw file server in a thread, with the shipped recipe's names, for tests of the lock."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

from helpers.server import Handler, served

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "recipes" / "huihui-gemma4-mtp-n1.yml"
BODY = "coolthor/Huihui-gemma-4-26B-A4B-it-abliterated-FP8-Dynamic"
DRAFT = "google/gemma-4-26B-A4B-it-assistant"
IMAGE = "vllm/vllm-openai"
TAG = "gemma4-0505-arm64-cu130"
PATCH = b"# the draft's own model code\n"
PATCH_PATH = (
    "vllm-project/vllm/27e0057aeda6bc443069c20fdf2f3cc95ed892f3/vllm/model_executor/models/gemma4_mtp.py"
)


class Depot(ThreadingHTTPServer):
    """``manifests`` maps "repository:tag" to the manifest's bytes, ``raw`` a path to a file's bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.host = self.url.removeprefix("http://")
        self.manifests: dict[str, bytes] = {f"{IMAGE}:{TAG}": b'{"schemaVersion": 2}'}
        self.raw: dict[str, bytes] = {PATCH_PATH: PATCH}
        self.raw_type = "text/plain"
        self.requests: list[tuple[str, str, str]] = []
        self.password: tuple[str, str] | None = None
        self.anonymous_tokens = True
        self.scheme = ""
        self.digest_header = True
        self.failures: list[int] = []

    def digest(self, name: str = f"{IMAGE}:{TAG}") -> str:
        return "sha256:" + hashlib.sha256(self.manifests[name]).hexdigest()


class Answers(Handler):
    server: Depot

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        depot, path = self.server, self.path.partition("?")[0]
        given = self.headers.get("Authorization", "")
        depot.requests.append((self.command, self.path, given))
        if depot.failures:
            self.answer(depot.failures.pop(0), Retry_After="0")
        elif path == "/token":
            user = ":".join(depot.password or ())
            right = given == "Basic " + base64.b64encode(user.encode()).decode()
            if right or (depot.anonymous_tokens and not given):
                self.answer(200, b'{"token": "t-%s"}' % (b"user" if right else b"anonymous"))
            else:
                self.answer(401)
        elif path.startswith("/v2/"):
            self.manifest(path, given)
        elif (content := depot.raw.get(path.removeprefix("/raw/"))) is not None:
            self.answer(200, content, Content_Type=depot.raw_type)
        else:
            self.answer(404)

    def manifest(self, path: str, given: str) -> None:
        depot = self.server
        wanted = "Bearer t-user" if depot.password else "Bearer t-anonymous"
        if depot.scheme and given != wanted:
            challenge = f'Bearer realm="{depot.url}/token",service="depot",scope="repository:{IMAGE}:pull"'
            self.answer(401, WWW_Authenticate=challenge)
            return
        repository, _, tag = path.removeprefix("/v2/").partition("/manifests/")
        body = depot.manifests.get(f"{repository}:{tag}")
        if body is None:
            self.answer(404)
            return
        kind = "application/vnd.oci.image.index.v1+json"
        if kind not in self.headers.get("Accept", ""):
            self.answer(406)
            return
        headers = {"Content_Type": kind}
        if depot.digest_header:
            headers["Docker_Content_Digest"] = "sha256:" + hashlib.sha256(body).hexdigest()
        self.answer(200, body, None, **headers)


@contextlib.contextmanager
def depot() -> Iterator[Depot]:
    with served(Depot()) as server:
        yield server
