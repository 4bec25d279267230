"""The module, from the storage of another registry on the same host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import oci
from ansible_collections.sparkfleet.vllm.plugins.modules import image_fetch
from helpers import bundle as maker


@pytest.fixture
def warned(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(image_fetch.AnsibleModule, "warn", lambda _module, text: said.append(text))
    return said


@pytest.fixture
def fetch(tmp_path, capsys):
    """A run of the module, from the storage `elsewhere`, which holds an image with an attestation."""
    digest = maker.fill_registry(tmp_path / "elsewhere")

    def run(**options):
        given = {
            "image": f"lab/image@{digest}",
            "storage": str(tmp_path / "registry"),
            "sources": [str(tmp_path / "elsewhere")],
            "architecture": "arm64",
            "disk_reserve": 0,
        }
        with patch_module_args(given | options), pytest.raises(SystemExit):
            image_fetch.main()
        return json.loads(capsys.readouterr().out)

    return run


def attestation_of(storage: Path) -> Path:
    """The bytes of its manifest."""
    contents = [
        json.loads(path.read_bytes()) for path in storage.rglob("data") if b'"manifests"' in path.read_bytes()
    ]
    return storage / oci.blob_path(contents[0]["manifests"][1]["digest"])


def test_an_image_is_fetched_once_with_its_attestation(fetch, tmp_path, warned):
    assert not fetch(settled_only=True)["settled"]
    result = fetch(_ansible_diff=True)
    assert (result["state"], warned) == ("fetched", [])
    assert len(result["diff"]["after"].splitlines()) == 5
    assert attestation_of(tmp_path / "registry").exists()
    assert fetch()["state"] == "present"
    assert fetch(settled_only=True)["settled"]


def test_an_attestation_that_no_source_has_is_warned_of_and_the_image_serves(fetch, tmp_path, warned):
    missing = attestation_of(tmp_path / "elsewhere")
    missing.unlink()
    result = fetch()
    assert result["state"] == "fetched"
    (warning,) = warned
    assert f"seen without an attestation of it: {missing}" in warning and "29.1" in warning
    assert (fetch()["changed"], warned) == (False, [warning, warning])
    assert not fetch(settled_only=True)["settled"]
