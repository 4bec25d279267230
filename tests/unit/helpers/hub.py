"""The lab's Hub in a thread, for tests that let the real huggingface_hub talk to it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.server import served

ROOT = Path(__file__).resolve().parents[3]
COMMIT = "c4bbb7689dc16de4aaa468647625a5a02f98e22f"

_spec = importlib.util.spec_from_file_location("lab_hub", ROOT / "molecule" / "lab" / "depot" / "hub.py")
assert _spec and _spec.loader
hub_server = importlib.util.module_from_spec(_spec)
sys.modules["lab_hub"] = hub_server
_spec.loader.exec_module(hub_server)


class LabHub:
    """A Hub and its directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server = hub_server.Hub(root)
        self.url: str = self.server.url

    def add(
        self, repository: str, files: dict[str, bytes], commit: str = COMMIT, **about: Any
    ) -> dict[str, Any]:
        """Publish a repository. Returns its manifest as the lock holds it, computed from the bytes given."""
        folder = self.root / repository
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        (folder / ".hub.json").write_text(json.dumps({"commit": commit, **about}))
        return {
            "repository": repository,
            "commit": commit,
            "files": {
                path: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for path, data in sorted(files.items())
            },
        }

    def faults(self, *rules: dict[str, Any]) -> None:
        (self.root / ".hub-faults.json").write_text(json.dumps(rules))

    def requests(self) -> list[dict[str, Any]]:
        self.server.wait_idle()
        log = self.root / ".hub-requests.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def forget_requests(self) -> None:
        self.server.wait_idle()
        (self.root / ".hub-requests.jsonl").unlink(missing_ok=True)


@contextlib.contextmanager
def lab_hub(root: Path) -> Iterator[LabHub]:
    root.mkdir(parents=True, exist_ok=True)
    hub = LabHub(root)
    with served(hub.server):
        yield hub
