"""verdict.json: what the watchdog writes is what its readers take, and nothing else is."""

from __future__ import annotations

import json

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import watched
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import judge, verdict
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.memory import Memory
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.seen import Look, Now
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.settings import Settings


def test_what_the_watchdog_writes_is_read() -> None:
    found = judge.Finding(watched.WEDGED, judge.ACTED_ON, "tokens", "none", "wait")
    speculation = {"drafts": 300, "acceptance_rate": None, "floor": 0.4}
    judgement = judge.Judgement(watched.BAD, "wedged", Memory(), (found,), speculation)
    written = verdict.document(judgement, Look(Now(1.0, 1.0, "b")), Settings(), ["one"])
    assert watched.parse(json.dumps(written)) == written


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "verdict.json"),
        ("{}", "version"),
        ('{"version": 1}', "looked_at"),
        ('{"version": 1, "looked_at": "now"}', "looked_at"),
        ("[" * 10, "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("x" * (watched.LIMIT + 1), "more than"),
    ],
)
def test_a_verdict_of_another_form_is_refused(content: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        watched.parse(content)
    with pytest.raises(ValueError, match=said):
        watched.parse(content.encode())
