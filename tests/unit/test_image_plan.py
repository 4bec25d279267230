"""Whether a fleet lacks an image."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._image_plan import plan

HERE = {"settled": True, "mirrored": True, "id": "sha256:1"}
LACKS = {"settled": False, "mirrored": True, "id": ""}
# It is there, and not in the ledger.
UNNOTED = HERE | {"settled": False}
ELSEWHERE = LACKS | {"mirrored": False}


@pytest.mark.parametrize(
    ("looks", "bring", "fetch"),
    [
        ([HERE, HERE], False, False),
        ([HERE, LACKS], True, True),
        ([HERE, UNNOTED], True, False),
        ([ELSEWHERE], True, False),
        # Not set up yet, so nobody could look: something is to be said of it.
        ([HERE, {}], True, False),
        ([], False, False),
    ],
)
def test_plan(looks, bring, fetch):
    assert plan(looks) == {"bring": bring, "fetch": fetch}
