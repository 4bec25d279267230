from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.reference import (
    Reference,
    parse_reference,
)

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:b", Reference("a", "docker.io", "library/a", "b", None)),
        ("vllm/vllm-openai:t", Reference("vllm/vllm-openai", "docker.io", "vllm/vllm-openai", "t", None)),
        ("docker.io/a:b", Reference("docker.io/a", "docker.io", "library/a", "b", None)),
        ("ghcr.io/o/a/b:t", Reference("ghcr.io/o/a/b", "ghcr.io", "o/a/b", "t", None)),
        ("localhost/a:t", Reference("localhost/a", "localhost", "a", "t", None)),
        ("host:5000/a:t", Reference("host:5000/a", "host:5000", "a", "t", None)),
        (f"a/b@{DIGEST}", Reference("a/b", "docker.io", "a/b", None, DIGEST)),
        (f"h:5/a/b:t@{DIGEST}", Reference("h:5/a/b", "h:5", "a/b", "t", DIGEST)),
    ],
)
def test_a_reference_in_its_parts(text, expected):
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a", "a/b", "host:5000/a", "A/b:c", "a:", ":t", "a b:c", "a@sha256:12", "a:t@", "a//b:c",
             "http://a/b:c", "a:" + "t" * 129, "a:t\n"],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        parse_reference(text)


def test_a_pinned_reference_drops_the_tag():
    assert parse_reference("h:5/a/b:t").pinned(DIGEST) == f"h:5/a/b@{DIGEST}"
