"""A host with models in its store and an image in a registry's storage, and what a bundle of them is to hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ansible_collections.sparkfleet.vllm.plugins.module_utils._bundle import layout, plan
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.paths import snapshot_path
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import oci
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.manifest import File, Manifest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.snapshot import Snapshot

COMMIT = "c" * 40
BODY = {"config.json": b"{}", "weights/model.safetensors": b"w" * 9000, "empty": b""}
REQUIREMENTS, PACKAGES = ("docker==7.2.0",), ("docker-registry",)
NOW = "2026-11-24T00:00:00Z"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest(files: dict[str, bytes] = BODY) -> Manifest:
    return Manifest(
        "lab/body", COMMIT, {path: File(len(content), sha256(content)) for path, content in files.items()}
    )


def fill_store(store: Path, files: dict[str, bytes] = BODY) -> Path:
    """A whole snapshot, and a stat cache that says so."""
    folder = Path(snapshot_path(str(store), "lab/body", COMMIT))
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        (folder / path).chmod(0o644)
    snapshot = Snapshot(str(store), manifest(files), 2, lambda text: None)
    assert snapshot.inspect(full=False)
    snapshot.settle()
    return folder


def fill_registry(storage: Path, layers: tuple[bytes, ...] = (b"layer one", b"layer two" * 500)) -> str:
    """An image of one platform behind an index, with its attestation; gives its digest."""

    def blob(content: bytes) -> dict[str, object]:
        digest = f"sha256:{sha256(content)}"
        path = storage / oci.blob_path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"digest": digest, "size": len(content)}

    config, layer_blobs = blob(b'{"architecture": "arm64"}'), [blob(layer) for layer in layers]
    described = {"config": config, "layers": layer_blobs}
    platform = {"os": "linux", "architecture": "arm64"}
    inner = blob(json.dumps(described).encode())
    statement, empty = blob(b'{"_type": "https://in-toto.io/Statement/v0.1"}'), blob(b"{}")
    attestation = blob(json.dumps({"config": empty, "layers": [statement]}).encode())
    unknown = {"os": "unknown", "architecture": "unknown"}
    refers = {"platform": unknown, "annotations": {oci.ATTESTS: inner["digest"]}}
    manifests = [{**inner, "platform": platform}, {**attestation, **refers}]
    index = blob(json.dumps({"manifests": manifests}).encode())
    blobs = [config, *layer_blobs, statement, empty, inner, attestation, index]
    digests = [str(entry["digest"]) for entry in blobs]
    for link, content in layout.image_links("lab/image", digests, digests[-3:]).items():
        (storage / link).parent.mkdir(parents=True, exist_ok=True)
        (storage / link).write_text(content)
    return str(index["digest"])


def wanted(digest: str, **other: object) -> plan.Wanted:
    given: dict[str, Any] = {
        "recipe": "lab",
        "image": f"lab/image@{digest}",
        "machine": "aarch64",
        "python": "3.12",
        "texts": {"recipe.yml": b"name: lab\n", "lock.yml": b"version: 1\n", "patches/ab/p.py": b"pass\n"},
        "manifests": [manifest()],
        "requirements": REQUIREMENTS,
        "packages": PACKAGES,
    }
    return plan.Wanted(**{**given, **other})


class Collected:
    """Stands in for pip and apt; `asked` are the sections they were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, section: str, work: Path) -> dict[str, Path]:
        self.asked.append(section)
        (work / "file").write_bytes(section.encode())
        return {
            "docker/docker-7.2.0-py3-none-any.whl"
            if section == "simple"
            else "docker-registry_1_arm64.deb": work / "file"
        }
