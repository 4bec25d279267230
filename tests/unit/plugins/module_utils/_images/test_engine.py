"""What is made of the engine's pull stream, of its refusals, and of the ledger of images."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.paths import ledger_path
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import ledger
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.engine import (
    Pull,
    PullError,
    holds,
    refusal,
)

GB = 1_000_000_000


def event(status, layer=None, current=None, total=None):
    said = {"status": status}
    if layer:
        said["id"] = layer
    if total:
        said["progressDetail"] = {"current": current, "total": total}
    return said


def fed(*events):
    pull = Pull()
    for one in events:
        pull.feed(one)
    return pull


START = [
    event("Pulling from vllm/vllm-openai", "sha256:aa"),
    event("Already exists", "base"),
    event("Pulling fs layer", "a"),
    event("Pulling fs layer", "b"),
    event("Waiting", "b"),
]


def test_nothing_is_said_before_a_size_is_known():
    assert fed(*START).line(0) == ""


def test_a_layer_whose_size_is_not_known_yet_makes_the_total_a_lower_bound():
    pull = fed(*START, event("Downloading", "a", GB, 4 * GB))
    assert pull.line(0) == "image: 1.0 of at least 4.0 GB pulled, 0.0 GB unpacked"


def test_bytes_of_all_layers_add_up_and_the_rate_is_that_of_the_last_seconds():
    pull = fed(*START, event("Downloading", "a", GB, 4 * GB), event("Downloading", "b", GB, 6 * GB))
    pull.line(0)
    pull.feed(event("Downloading", "a", 2 * GB, 4 * GB))
    assert pull.line(10) == "image: 3.0 of 10.0 GB pulled, 0.0 GB unpacked, 100 MB/s"
    # Long after: the first seconds no longer count.
    pull.feed(event("Downloading", "a", 3 * GB, 4 * GB))
    assert pull.line(20) == "image: 4.0 of 10.0 GB pulled, 0.0 GB unpacked, 100 MB/s"
    assert pull.line(34) == "image: 4.0 of 10.0 GB pulled, 0.0 GB unpacked"


def test_a_layer_that_arrived_counts_as_a_whole_and_unpacking_is_counted_apart():
    pull = fed(
        event("Pulling fs layer", "a"),
        event("Downloading", "a", GB, 4 * GB),
        event("Verifying Checksum", "a"),
        event("Extracting", "a", 3 * GB, 4 * GB),
    )
    assert pull.line(0) == "image: 4.0 of 4.0 GB pulled, 3.0 GB unpacked"
    pull.feed(event("Pull complete", "a"))
    assert pull.line(1) == "image: 4.0 of 4.0 GB pulled, 4.0 GB unpacked"
    assert pull.pulled == 4 * GB


def test_an_engine_that_counts_seconds_while_unpacking_shows_that_it_works():
    def extracting(layer, seconds):
        return {"status": "Extracting", "id": layer, "progressDetail": {"current": seconds, "units": "s"}}

    assert fed(extracting("a", 95)).line(0) == "image: unpacking, 95 s"
    pull = fed(event("Downloading", "a", 4 * GB, 4 * GB), extracting("a", 95))
    assert pull.line(0) == "image: 4.0 of 4.0 GB pulled, 0.0 GB unpacked (at one layer for 95 s)"
    pull.feed(event("Pull complete", "a"))
    assert pull.line(1) == "image: 4.0 of 4.0 GB pulled, 4.0 GB unpacked"


def test_layers_that_were_there_are_no_part_of_it():
    assert fed(event("Already exists", "base"), event("Digest: sha256:aa")).line(0) == ""


@pytest.mark.parametrize(
    ("said", "words", "again"),
    [
        (
            "write /var/lib/docker/x: no space left on device",
            "make room where Docker keeps its images",
            False,
        ),
        ("filesystem layer verification failed for digest sha256:1", "other bytes than were locked", False),
        ("toomanyrequests: You have reached your pull rate limit", "spark_registry_host", False),
        ("manifest for a/b@sha256:1 not found: manifest unknown", "check the lock", False),
        ("unauthorized: authentication required", "docker login", False),
        ("no matching manifest for linux/arm64", "built for this host", False),
        ("unexpected EOF", "journalctl -u docker", True),
        (
            "Head https://r.example/v2/a/manifests/x: received 429 Too Many Requests",
            "spark_registry_host",
            False,
        ),
        (
            "no matching manifest for linux/arm64 in the manifest list entries: no match for platform in manifest: not found",
            "built for this host",
            False,
        ),
        (
            "pull access denied for r.example/a, repository does not exist or may require 'docker login'",
            "docker login)",
            False,
        ),
        ("denied: requested access to the resource is denied", "docker login)", False),
        ("error from registry: access denied to team/vllm", "docker login)", False),
        ("error from registry: denied\ndenied", "docker login)", False),
        ('Head "https://ghcr.example/v2/team/vllm/manifests/x": denied: denied', "docker login)", False),
        ("open /var/lib/docker/tmp/x: permission denied", "journalctl -u docker", True),
        ("error from registry: Incorrect Repository Format", "correct image.reference", False),
        (
            "unexpected commit digest sha256:1, expected sha256:2: failed precondition",
            "without --limit",
            False,
        ),
        ("content at http://r/v2/a/manifests/sha256:1 not found: not found", "check the lock", False),
        ('could not find "not found" in a cache of names', "journalctl -u docker", True),
    ],
)
def test_a_refusal_says_what_was_seen_what_to_do_and_whether_again_may_help(said, words, again):
    for given in (
        {"error": said},
        {"errorDetail": {"message": said}},
        {"error": "", "errorDetail": {"message": said}},
    ):
        with pytest.raises(PullError) as raised:
            fed(given)
        assert said in str(raised.value)
        assert words in str(raised.value)
        assert raised.value.again is again
    assert refusal(said).again is again


def test_the_digest_of_an_image_is_that_of_any_name_it_has():
    assert holds(["mirror/a@sha256:1", "a@sha256:2"], "sha256:2")
    assert not holds(["a@sha256:22"], "sha256:2")
    assert not holds([], "sha256:2")


def test_a_ledger_is_sorted_without_repetition_and_read_as_it_was_written():
    text = ledger.render(["b@sha256:2", "a@sha256:1", "b@sha256:2"])
    assert ledger.parse(text) == ["a@sha256:1", "b@sha256:2"]
    assert text.endswith("}\n")
    assert ledger.parse(None) == []
    assert ledger_path("/var/lib/sparkfleet") == "/var/lib/sparkfleet/images.json"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "images": []}',
        '{"version": 1, "images": "a"}',
        '{"version": 1, "images": [1]}',
    ],
)
def test_a_ledger_of_another_kind_is_refused(text):
    with pytest.raises(ledger.LedgerError, match="expected"):
        ledger.parse(text)
