from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.upstream import (
    NotFound,
    Unusable,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import raw_file
from helpers.recipe import PATCH, PATCH_PATH, depot


def test_a_raw_file_is_its_bytes_and_its_errors_are_told():
    repository, commit, path = "vllm-project/vllm", PATCH_PATH.split("/")[2], PATCH_PATH.split("/", 3)[3]
    with depot() as server:
        assert raw_file.fetch(f"{server.url}/raw/", repository, commit, path) == PATCH
        with pytest.raises(NotFound, match="no such repository, commit or path"):
            raw_file.fetch(f"{server.url}/raw", repository, "0" * 40, path)
        server.raw_type = "text/html; charset=utf-8"
        with pytest.raises(Unusable, match="a web page"):
            raw_file.fetch(f"{server.url}/raw", repository, commit, path)
        server.raw[PATCH_PATH], server.raw_type = b"", "text/plain"
        with pytest.raises(Unusable, match="an empty file"):
            raw_file.fetch(f"{server.url}/raw", repository, commit, path)
