from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import manifest as model_manifest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.manifest import File, ManifestError

COMMIT, SHA = "c" * 40, "a" * 64
GOOD = {"size": 3, "sha256": SHA}


def test_a_manifest_is_typed():
    manifest = model_manifest.parse("org/name", COMMIT, {"sub/a.bin": GOOD, "b": {"size": 0, "sha256": SHA}})
    assert manifest.files == {"sub/a.bin": File(3, SHA), "b": File(0, SHA)}
    assert manifest.size == 3


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "..",
        ".",
        "./a",
        "a//b",
        "a/",
        "",
        "a\\b",
        "a\nb",
        "a\0b",
        "x" * 256,
        "y/" * 600 + "z",
        7,
        None,
    ],
)
def test_a_name_that_does_not_stay_inside_is_refused(path):
    with pytest.raises(ManifestError, match="expected a"):
        model_manifest.parse("org/name", COMMIT, {path: GOOD})


@pytest.mark.parametrize("path", [".gitattributes", "a b", "größe.json", "..a", "a..b", "-rf", "x" * 255])
def test_a_name_that_stays_inside_is_accepted(path):
    assert list(model_manifest.parse("org/name", COMMIT, {path: GOOD}).files) == [path]


@pytest.mark.parametrize(
    "repository",
    [
        "name",
        "org/",
        "/name",
        "org/a/b",
        "../name",
        "org/..",
        "org/a--b",
        "org/a b",
        ".o/x",
        5,
        None,
        "o/n\n",
    ],
)
def test_a_repository_that_the_hub_cannot_have_is_refused(repository):
    with pytest.raises(ManifestError, match="expected org/name"):
        model_manifest.parse(repository, COMMIT, {"a": GOOD})


@pytest.mark.parametrize("commit", ["main", "C" * 40, "c" * 39, "c" * 41, None, "c" * 40 + "\n"])
def test_a_revision_that_can_move_is_refused(commit):
    with pytest.raises(ManifestError, match="commit of 40 hex digits"):
        model_manifest.parse("org/name", commit, {"a": GOOD})


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"size": -1, "sha256": SHA}, "size in bytes, seen -1"),
        ({"size": "3", "sha256": SHA}, "size in bytes, seen '3'"),
        ({"size": True, "sha256": SHA}, "size in bytes, seen True"),
        ({"size": 3, "sha256": "A" * 64}, "sha256 as 64 lower-case"),
        ({"size": 3}, "sha256 as 64 lower-case.*seen None"),
        ({**GOOD, "md5": "x"}, "only size and sha256, seen also md5"),
        ("x", "expected {size, sha256}, seen 'x'"),
    ],
)
def test_an_entry_must_be_size_and_sha256(entry, problem):
    with pytest.raises(ManifestError, match=problem):
        model_manifest.parse("org/name", COMMIT, {"a": entry})


@pytest.mark.parametrize("files", [{}, None, [], "x"])
def test_no_files_is_no_snapshot(files):
    with pytest.raises(ManifestError, match="expected files as"):
        model_manifest.parse("org/name", COMMIT, files)


def test_a_file_that_is_also_a_folder_is_refused():
    with pytest.raises(
        ManifestError, match=r"a/b: expected a file, seen also a folder of that name \(a/b/c\)"
    ):
        model_manifest.parse("org/name", COMMIT, {"a/b": GOOD, "a/b/c": GOOD})


def test_the_reason_is_the_one_that_matters():
    with pytest.raises(ManifestError, match="it is absolute"):
        model_manifest.parse("org/name", COMMIT, {"/etc/passwd": GOOD})


def test_every_problem_is_reported_at_once():
    with pytest.raises(ManifestError) as raised:
        model_manifest.parse("name", "main", {"/a": GOOD, "b": {"size": 1, "sha256": ""}})
    assert len(raised.value.problems) == 4
