"""Fragments are what the tool takes, and CHANGELOG.md is what it makes of them."""

from __future__ import annotations

import shutil

import pytest
import yaml
from changelog import READ, ROOT, page, tool

CHANGES = ROOT / "changelogs" / "changelog.yaml"


def test_fragments_are_what_the_tool_takes():
    assert tool("lint") == ""


@pytest.mark.skipif(not CHANGES.exists(), reason="there is no release yet")
def test_releases_are_what_the_tool_takes():
    assert tool("lint-changelog-yaml", str(CHANGES)) == ""


def test_the_changelog_is_made_of_them():
    assert (ROOT / "CHANGELOG.md").read_text() == page(), "make changelog"


def test_a_release_takes_the_fragments_and_the_page_stays_true(tmp_path):
    """What docs/releasing.md has one do, in a copy."""
    for part in READ:
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / part)
    tool("release", cwd=tmp_path)
    assert list((tmp_path / "changelogs/fragments").glob("*")) == []
    tool("lint-changelog-yaml", "changelogs/changelog.yaml", cwd=tmp_path)
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    assert version in yaml.safe_load((tmp_path / "changelogs/changelog.yaml").read_text())["releases"]
    made = (tmp_path / "CHANGELOG.md").read_text()
    assert made == page(tmp_path) and "unreleased" not in made
