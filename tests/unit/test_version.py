from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._version import (
    complaint,
    release,
    tagged,
    within,
)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.32.0", "0.32.0"),
        ("v0.32.0", "0.32.0"),
        ("0.32", "0.32"),
        ("0.32.0+cpu", "0.32.0"),
        ("0.20.2rc1.dev49+g9b4e839", "0.20.2"),
        ("0.9.0.1", "0.9.0.1"),
        ("0.2.7", "0.2.7"),
        ("0.1.7", "0.1.7"),
        # What setuptools-scm makes of a clone without tags, whatever it holds.
        ("0.1.dev15396+g5e35a6f4f", None),
        ("0.0.1.dev7+gabc", None),
        ("0.1.dev1+g5e35a6f4f.d20260101.cu130", None),
        ("latest", None),
        ("dev", None),
        ("", None),
    ],
)
def test_the_release_of_a_version(version, expected):
    assert release(version) == expected


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("v0.32.0", "0.32.0"),
        ("v0.32.0-aarch64-cu130", "0.32.0"),
        ("v0.32.0_cu130", "0.32.0"),
        ("v0.20.2rc1", "0.20.2rc1"),
        ("26.02-py3", None),
        ("gemma4-0505-arm64-cu130", None),
        ("nightly", None),
        ("v1", None),
        ("v-next", None),
        (None, None),
    ],
)
def test_only_tags_of_releases_name_a_version(tag, expected):
    assert tagged(tag) == expected


@pytest.mark.parametrize(
    ("span", "inside", "outside"),
    [
        (">=0.25,<0.27", ["0.25.0", "0.25.1", "0.26.0", "0.26.1rc1.dev7"], ["0.24.9", "0.27.0", "0.27.0rc1"]),
        ("<0.21", ["0.20.2", "0.20.2rc1.dev49+g9b4e839", "0.9"], ["0.21.0", "0.100.0"]),
        ("> 0.30 , <= 0.31.1", ["0.30.1", "0.31.1"], ["0.30.0", "0.31.2"]),
        ("==0.31", ["0.31.0"], ["0.31.1"]),
        ("==0.31.*,!=0.31.1", ["0.31.0", "0.31.2"], ["0.31.1", "0.32.0"]),
    ],
)
def test_ranges(span, inside, outside):
    assert complaint(span) is None
    assert [version for version in inside if not within(version, span)] == []
    assert [
        version for version in [*outside, "latest", "0.1.dev15396+g5e35a6f4f"] if within(version, span)
    ] == []


@pytest.mark.parametrize(
    "span", ["", "0.25", "0.25.*", ">=0.25;<0.27", ">=x", ">=0.25,", "~=0.25", "===0.25.0"]
)
def test_what_is_no_range_is_told(span):
    assert "expected a range of releases" in str(complaint(span))
    assert not within("0.25.0", span)
