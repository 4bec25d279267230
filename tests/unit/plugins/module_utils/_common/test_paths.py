from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import paths


def test_snapshot_path_is_content_addressed_and_flat():
    assert paths.snapshot_path("/srv/s", "org/name", "c" * 40) == "/srv/s/models/org--name/" + "c" * 40


def test_patch_path_carries_the_sha256():
    assert paths.patch_path("/srv/s", "ab", "gemma4_mtp.py") == "/srv/s/patches/ab/gemma4_mtp.py"


def test_the_answer_of_an_image_lies_under_its_digest():
    assert paths.cache_root("/srv/s") == "/srv/s/cache"
    assert paths.compiled_path("/srv/s", "sha256:ab", "vllm") == "/srv/s/cache/compiled/ab/vllm"
    assert paths.image_answer_path("/srv/s", "sha256:ab", "q") == "/srv/s/cache/images/ab/q.json"
