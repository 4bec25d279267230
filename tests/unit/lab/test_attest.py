"""The image with an attestation that the lab publishes is one as buildx makes it, by what reads images here."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import oci
from helpers.build import Registry, digest_of, registry
from helpers.recipe import ROOT

ATTEST = ROOT / "molecule/lab/stub/attest.py"


def put(url: str, content: bytes) -> None:
    urllib.request.urlopen(urllib.request.Request(url, data=content, method="PUT")).close()


def described(content: bytes) -> dict[str, Any]:
    return {"digest": digest_of(content), "size": len(content)}


def attest(server: Registry) -> str:
    argv = [sys.executable, str(ATTEST), f"http://{server.address}", "lab/stub", "2", "attested"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def published(tmp_path: Path):
    """The registry, and the digest of its image `lab/stub:2`."""
    with registry(tmp_path) as server:
        home = f"http://{server.address}/v2/lab/stub"
        config, layer = b'{"os": "linux", "architecture": "arm64"}', b"layer"
        for content in (config, layer):
            put(f"{home}/blobs/uploads/1?digest={digest_of(content)}", content)
        manifest = json.dumps({"config": described(config), "layers": [described(layer)]}).encode()
        put(f"{home}/manifests/2", manifest)
        yield server, digest_of(manifest)


def test_it_is_an_index_of_the_image_and_its_attestation(published) -> None:
    server, image = published
    digest = attest(server)

    def manifest(name: str) -> bytes:
        return server.blob(name).read_bytes()

    held = oci.read_image(digest, "arm64", manifest)
    assert list(held.manifests) == [digest, image]
    (attestation,) = held.attestations
    whole = held.attested({attestation: manifest(attestation)})
    assert len(whole.blobs) == len(held.blobs) + 2
    assert all(len(server.blob(blob.digest).read_bytes()) == blob.size for blob in whole.blobs)
    assert attest(server) == digest, "same image, same digest"
