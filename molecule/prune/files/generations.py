# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes three generations of models, patch and image, and a model that was only synced; prints where they are.

    generations.py http://registry:5000

The images are sparkfleet-lab/stub:1 under other digests: the same layers, another label. Run on a lab Spark.
"""

from __future__ import annotations

import hashlib
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

STORE = Path("/srv/sparkfleet")
STUB, REPOSITORY = "sparkfleet-lab/stub", "sparkfleet-lab/generations"
FORMAT = "application/vnd.docker.distribution.manifest.v2+json"
TARGET = "/usr/local/lib/python3.12/dist-packages/vllm/model_executor/models/gemma4_mtp.py"
SIZE = 1_000_000

registry = sys.argv[1]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(method: str, url: str, body: bytes | None = None, **headers: str) -> Any:
    address = url if url.startswith("http") else f"{registry}/v2/{url}"
    request = urllib.request.Request(
        address, body, {name.replace("_", "-"): value for name, value in headers.items()}, method=method
    )
    return opener.open(request, timeout=30)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def publish(name: str) -> str:
    """The stub's image with a label of its own; gives its digest."""
    manifest = json.load(ask("GET", f"{STUB}/manifests/1", Accept=FORMAT))
    config = json.load(ask("GET", f"{STUB}/blobs/{manifest['config']['digest']}"))
    config["config"]["Labels"] = {**(config["config"].get("Labels") or {}), "generation": name}
    for layer in manifest["layers"]:
        ask("POST", f"{REPOSITORY}/blobs/uploads/?mount={layer['digest']}&from={STUB}", b"").close()
    data = json.dumps(config).encode()
    place = ask("POST", f"{REPOSITORY}/blobs/uploads/", b"").headers["Location"]
    ask("PUT", f"{place}&digest={digest(data)}", data, Content_Type="application/octet-stream").close()
    manifest["config"] |= {"digest": digest(data), "size": len(data)}
    data = json.dumps(manifest).encode()
    ask("PUT", f"{REPOSITORY}/manifests/{name}", data, Content_Type=FORMAT).close()
    return digest(data)


def snapshot(repository: str, name: str) -> dict[str, str]:
    commit = hashlib.sha1(f"{repository} {name}".encode()).hexdigest()
    folder = STORE / "models" / repository.replace("/", "--")
    place = folder / commit / "model.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(name.encode().ljust(SIZE, b"."))
    for kind in ("verified", "pieces"):
        (folder / f".{kind}-{commit}.json").write_text("{}")
    return {
        "commit": commit,
        "path": str(place.parent),
        "sha256": hashlib.sha256(place.read_bytes()).hexdigest(),
    }


def patch(name: str) -> dict[str, Any]:
    data = f"# generation {name}\n".encode()
    sha256 = hashlib.sha256(data).hexdigest()
    place = STORE / "patches" / sha256 / "gemma4_mtp.py"
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    return {
        "name": place.name,
        "host_path": str(place),
        "target": TARGET,
        "md5": hashlib.md5(data).hexdigest(),
        "sha256": sha256,
        "mount": True,
    }


made: dict[str, Any] = {}
for name in ("old", "good", "now"):
    made[name] = {
        "models": {role: snapshot(f"lab/{role}", name) for role in ("body", "draft")},
        "patch": patch(name),
        "image": f"{REPOSITORY}@{publish(name)}",
    }
made["next"] = {"models": {"body": snapshot("lab/body", "next")}}
print(json.dumps(made))
