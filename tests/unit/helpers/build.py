"""What a build meets on a host, for tests: an engine, its client, a git repository, and a registry that takes pushes.

The registry keeps what it gets in the layout of the distribution's, as docker-registry 2.8.2 was seen to. Run as a program it
takes `serve <configuration>`, as that does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
from helpers.server import Handler, served

TOP = "docker/registry/v2"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


# -- a registry that takes pushes


class Registry(ThreadingHTTPServer):
    """`spoil`: every layer that is pushed gets another byte on the disk; `requests`: methods and paths."""

    daemon_threads = True

    def __init__(self, root: Path, port: int = 0, spoil: bool = False) -> None:
        super().__init__(("127.0.0.1", port), Answers)
        self.root, self.spoil = root / TOP, spoil
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.requests: list[str] = []

    def keep(self, place: str, content: bytes) -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def blob(self, digest: str) -> Path:
        value = digest.removeprefix("sha256:")
        return self.root / "blobs/sha256" / value[:2] / value / "data"


class Answers(Handler):
    server: Registry

    def do_POST(self) -> None:
        self.answer(202, Location=f"{self.path}1")

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        repository, _, name = self.path.removeprefix("/v2/").partition("/manifests/")
        digest = digest_of(content)
        if name:
            link = f"repositories/{repository}/_manifests"
            self.server.keep(f"{link}/revisions/{digest.replace(':', '/')}/link", digest.encode())
            self.server.keep(f"{link}/tags/{name}/current/link", digest.encode())
        else:
            repository = self.path.removeprefix("/v2/").partition("/blobs/")[0]
            self.server.keep(
                f"repositories/{repository}/_layers/{digest.replace(':', '/')}/link", digest.encode()
            )
            if self.server.spoil and not content.startswith(b"{"):
                content = b"\0" + content[1:]
        self.server.keep(str(self.server.blob(digest).relative_to(self.server.root)), content)
        self.answer(201)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        repository, _, name = (
            self.path.removeprefix("/v2/").replace("/blobs/", "/manifests/").partition("/manifests/")
        )
        tag = self.server.root / "repositories" / repository / "_manifests/tags" / name / "current/link"
        digest = tag.read_text() if tag.exists() else name
        if self.path == "/v2/":
            self.answer(200)
        elif digest.startswith("sha256:") and self.server.blob(digest).exists():
            self.answer(
                200,
                self.server.blob(digest).read_bytes(),
                Content_Type=MANIFEST,
                Docker_Content_Digest=digest,
            )
        else:
            self.answer(404)


@contextlib.contextmanager
def registry(root: Path) -> Iterator[Registry]:
    with served(Registry(root)) as server:
        yield server


def program(folder: Path, *options: str) -> str:
    """Path of the registry as a program. Options: `spoil`, or `die` with a line in its log."""
    path = folder / "docker-registry"
    run = f"PYTHONPATH={Path(__file__).parents[1]} exec {sys.executable} -m helpers.build"
    path.write_text(f'#!/bin/sh\n{run} "$@" {" ".join(options)}\n')
    path.chmod(0o755)
    return str(path)


def main() -> None:
    verb, config, *options = sys.argv[1:]
    assert verb == "serve"
    if "die" in options:
        sys.exit("configuration error: no such thing")
    known = json.loads(Path(config).read_text())
    root = Path(known["storage"]["filesystem"]["rootdirectory"])
    Registry(root, int(known["http"]["addr"].rpartition(":")[2]), "spoil" in options).serve_forever()


# -- an engine, and the client that builds with it


CLIENT = """#!/bin/sh
echo "$DOCKER_BUILDKIT $*" >>"{calls}"
for argument; do context=$argument; case $argument in --tag=*) name=${{argument#--tag=}};; esac; done
[ -d "$context/.git" ] || exit 9
echo '#1 [internal] load build definition from Dockerfile'
echo '#5 [csrc-build 5/9] RUN python3 setup.py bdist_wheel'
echo '#5 1.5 [ 45/310] Building CUDA object a.o'
cat "{says}" 2>/dev/null && exit 1
[ -e "{elsewhere}" ] || echo "$name" >>"{names}"
exit 0
"""


class Engine:
    """What the module asks of docker.from_env(). An image is its labels, which the client was told, and one layer.

    `containerd`: it tells the digest of a push in words only. `elsewhere`: a file that makes the client build in another engine.
    """

    def __init__(self, folder: Path) -> None:
        self.calls, self.says, self.elsewhere = folder / "calls", folder / "says", folder / "another-engine"
        self._names = folder / "names"
        client = folder / "docker"
        places = {"calls": self.calls, "says": self.says, "names": self._names, "elsewhere": self.elsewhere}
        client.write_text(CLIENT.format(**places))
        client.chmod(0o755)
        self.refuses, self.containerd, self.index = "", False, ""
        self.before_push: Callable[[], None] = lambda: None
        self.folder = folder
        self.images = SimpleNamespace(get=self._get, remove=self._remove)
        self.api = SimpleNamespace(push=self._push)

    @property
    def names(self) -> list[str]:
        """What it calls images."""
        return self._names.read_text().split() if self._names.exists() else []

    @names.setter
    def names(self, names: list[str]) -> None:
        self._names.write_text("".join(f"{name}\n" for name in names))

    def info(self) -> dict[str, Any]:
        return {"DockerRootDir": str(self.folder)}

    def builds(self) -> list[str]:
        """The command line of each build."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def _known(self, name: str) -> None:
        if name not in self.names:
            raise docker.errors.ImageNotFound(f"No such image: {name}")

    def _get(self, name: str) -> Any:
        self._known(name)

        def tag(repository: str, tag: str) -> None:
            self.names = [*self.names, f"{repository}:{tag}"]

        return SimpleNamespace(tag=tag)

    def _remove(self, name: str, noprune: bool) -> None:
        self._known(name)
        assert noprune
        self.names = [other for other in self.names if other != name]

    def _push(self, name: str, **options: Any) -> Iterator[dict[str, Any]]:
        assert f"{name}:{options['tag']}" in self.names
        self.before_push()
        if self.refuses:
            yield {"error": self.refuses}
            return
        yield {"status": "Pushing", "id": "a", "progressDetail": {"current": 5, "total": 9}}
        home, _, repository = name.partition("/")
        labels = dict(
            word.removeprefix("--label=").split("=", 1)
            for word in self.builds()[-1].split()
            if word.startswith("--label=")
        )
        configuration = json.dumps({"config": {"Labels": labels}}).encode()
        layer = f"layer of build {len(self.builds())}".encode()
        for content in (configuration, layer):
            _put(f"http://{home}/v2/{repository}/blobs/uploads/1?digest={digest_of(content)}", content)
        described = [
            {"digest": digest_of(content), "size": len(content)} for content in (configuration, layer)
        ]
        manifest = json.dumps({"config": described[0], "layers": described[1:]}).encode()
        _put(f"http://{home}/v2/{repository}/manifests/{options['tag']}", manifest)
        tag, digest, size = options["tag"], digest_of(manifest), len(manifest)
        if self.index:
            instead = {"originalIndex": {"digest": self.index}, "selectedManifest": {"digest": digest}}
            yield {"aux": {"manifestPushedInsteadOfIndex": True, **instead}}
        yield {"status": f"{tag}: digest: {digest} size: {size}"}
        if not self.containerd:
            yield {"aux": {"Tag": tag, "Digest": digest, "Size": size}}


def _put(url: str, content: bytes) -> None:
    urllib.request.urlopen(urllib.request.Request(url, data=content, method="PUT"))


# -- a git repository


class Repository:
    """`owner/name` below `endpoint`, with a tag before its last commits. `commits`: from the first to the last."""

    def __init__(self, folder: Path) -> None:
        self.endpoint, self.path = f"file://{folder}", folder / "owner" / "name"
        self.path.mkdir(parents=True)
        self.git("init", "--quiet")
        self.commits = []
        for number in (1, 2, 3):
            (self.path / "Dockerfile").write_text(f"FROM scratch\n# {number}\n")
            self.git("add", ".")
            self.git("commit", "--quiet", "--message", f"{number}")
            self.commits.append(self.git("rev-parse", "HEAD"))
            if number == 1:
                self.git("tag", "v0.1.0")

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        run = subprocess.run(
            ["git", "-C", str(self.path), *who, *arguments], check=True, capture_output=True, text=True
        )
        return run.stdout.strip()


if __name__ == "__main__":
    main()
