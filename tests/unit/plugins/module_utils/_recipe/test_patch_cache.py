from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import patch_cache
from helpers.lock import MARK
from helpers.recipe import PATCH


def test_the_cache_gives_only_what_its_address_says(tmp_path):
    path = patch_cache.keep(str(tmp_path), "gemma4_mtp.py", PATCH)
    assert path == f"{tmp_path}/patches/{MARK.sha256}/gemma4_mtp.py"
    assert patch_cache.cached(str(tmp_path), MARK.sha256, "gemma4_mtp.py") == path
    with open(path, "ab") as file:
        file.write(b"#")
    assert patch_cache.cached(str(tmp_path), MARK.sha256, "gemma4_mtp.py") is None
    assert patch_cache.cached(str(tmp_path), "0" * 64, "gemma4_mtp.py") is None
