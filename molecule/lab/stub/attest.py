"""Publishes an image once more, as an index with an attestation beside it, as buildx pushes it: attest.py REGISTRY REPOSITORY TAG NEW_TAG

REGISTRY is the address of its API. Same image, same bytes, same digest.
"""

from __future__ import annotations

import hashlib
import json
import sys
import urllib.parse
import urllib.request
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


class Repository:
    def __init__(self, registry: str, name: str) -> None:
        self.url = f"{registry.rstrip('/')}/v2/{name}"

    def ask(self, method: str, url: str, data: bytes | None = None, **headers: str) -> Any:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return urllib.request.urlopen(urllib.request.Request(url, data, given, method=method))

    def get(self, path: str, accept: str) -> bytes:
        with self.ask("GET", f"{self.url}/{path}", Accept=accept) as answer:
            return bytes(answer.read())

    def blob(self, content: bytes, kind: str) -> dict[str, Any]:
        described = describe(content, kind)
        with self.ask("POST", f"{self.url}/blobs/uploads/", b"") as answer:
            place = urllib.parse.urljoin(self.url, answer.headers["Location"])
        also = "&" if "?" in place else "?"
        query = urllib.parse.urlencode({"digest": described["digest"]})
        self.ask("PUT", f"{place}{also}{query}", content, Content_Type="application/octet-stream").close()
        return described

    def manifest(self, content: dict[str, Any], name: str = "") -> dict[str, Any]:
        text = json.dumps(content, sort_keys=True).encode()
        described = describe(text, content["mediaType"])
        url = f"{self.url}/manifests/{name or described['digest']}"
        self.ask("PUT", url, text, Content_Type=content["mediaType"]).close()
        return described


def describe(content: bytes, kind: str) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    return {"mediaType": kind, "digest": digest, "size": len(content)}


def main() -> None:
    registry, name, tag, new = sys.argv[1:]
    repository = Repository(registry, name)
    text = repository.get(f"manifests/{tag}", MANIFEST)
    image = describe(text, MANIFEST)
    config = json.loads(repository.get(f"blobs/{json.loads(text)['config']['digest']}", "*/*"))
    subject = [{"name": name, "digest": {"sha256": image["digest"].partition(":")[2]}}]
    predicate = "https://slsa.dev/provenance/v0.2"
    statement = {"_type": "https://in-toto.io/Statement/v0.1", "predicateType": predicate, "subject": subject}
    layer = repository.blob(json.dumps(statement).encode(), "application/vnd.in-toto+json")
    layer["annotations"] = {"in-toto.io/predicate-type": predicate}
    nothing = {
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    attestation = repository.manifest(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": repository.blob(
                json.dumps(nothing).encode(), "application/vnd.oci.image.config.v1+json"
            ),
            "layers": [layer],
        }
    )
    attestation["platform"] = {"os": "unknown", "architecture": "unknown"}
    attestation["annotations"] = {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    image["platform"] = {"os": config["os"], "architecture": config["architecture"]}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [image, attestation]}
    print(repository.manifest(index, new)["digest"])


if __name__ == "__main__":
    main()
