"""What is on record, and nothing where that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import records


def entry(port: int) -> dict[str, Any]:
    serving = {
        "container": {"image": "i"},
        "models": {},
        "files": [],
        "gate": {"base_url": f"http://a:{port}"},
    }
    return {"serving": serving, "gate": {}}


def test_what_is_on_record(tmp_path: Path) -> None:
    state = {"version": 1, "current": entry(8000), "last_good": entry(9000)}
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert records.servings(str(tmp_path)) == [entry(8000)["serving"], entry(9000)["serving"]]
    assert records.servings(str(tmp_path), ["last_good"]) == [entry(9000)["serving"]]
    assert records.ports(str(tmp_path)) == [8000, 9000]


@pytest.mark.parametrize("text", [None, "", "{", '{"version": 1, "current": null}', '{"version": 2}'])
def test_what_cannot_be_read_has_nothing(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "state.json").write_text(text)
    assert records.servings(str(tmp_path)) == records.ports(str(tmp_path)) == []
    assert records.servings(None) == []
