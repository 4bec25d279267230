from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.host import requirements


@pytest.mark.parametrize(
    ("requirement", "version", "met"),
    [
        ("docker==7.2.0", "7.2.0", True),
        ("docker==7.2", "7.2.0", True),
        ("docker==7.2.0", "7.2.1", False),
        ("Docker==7.2.*", "7.20.0", False),
        ("docker==7.2.*", "7.2.9", True),
        ("docker>=7.10", "7.9", False),
        ("docker >= 7.2, ==7.*", "7.3", True),
        ("docker>=7.2,<8", "8.0", False),
        ("docker~=7.1", "7.9", True),
        ("docker!=7.3", "7.3.0", False),
        ("docker>=7", "7.3rc1", True),
        ("docker==7.2.0", "7.2.0+local", True),
        ("docker==7.2.0", "not a version", False),
        ("docker", "0.1", True),
        ("docker", None, False),
    ],
)
def test_satisfied(requirement, version, met):
    assert requirements.satisfied(requirement, {"docker": version} if version else {}) is met


def test_distribution_names_compare_normalized():
    assert requirements.satisfied("huggingface_hub>=2", {"Huggingface.Hub": "2.4"})
