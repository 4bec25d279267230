from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import patch as patches

CONTENT = b"answer = 42\n"
PATCH: dict[str, Any] = {
    "name": "gemma4_mtp.py",
    "path": "pkg/models/gemma4_mtp.py",
    "md5": hashlib.md5(CONTENT).hexdigest(),
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
    "tried_with": ["repo/img:tag"],
}
FOUND = {"target": "/site/pkg/models/gemma4_mtp.py", "md5": "m", "sha256": "s"}


def test_the_locked_bytes_pass_and_others_name_both_hashes():
    patches.check_content(PATCH, CONTENT)
    with pytest.raises(patches.PatchError) as caught:
        patches.check_content(PATCH, CONTENT + b"#")
    assert PATCH["md5"] in str(caught.value)
    assert hashlib.md5(CONTENT + b"#").hexdigest() in str(caught.value)


def test_each_of_the_two_hashes_is_held():
    for name in ("md5", "sha256"):
        with pytest.raises(patches.PatchError, match="expected md5"):
            patches.check_content(PATCH | {name: "0"}, CONTENT)


@pytest.mark.parametrize(
    ("names", "tried", "refused"),
    [
        (["repo/img:tag", "repo/img@sha256:1"], ["repo/img:tag"], False),
        (["repo/img:new", "repo/img@sha256:1"], ["repo/img:tag", "sha256:1"], False),
        (["repo/img:new", "repo/img@sha256:2"], ["repo/img:tag", "sha256:1"], True),
        (["anything"], [], False),
    ],
)
def test_a_patch_is_tied_to_the_images_it_was_tried_with(names, tried, refused):
    patch = PATCH | {"tried_with": tried}
    assert patches.untried(patch, names) is refused
    if refused:
        with pytest.raises(patches.PatchError, match="patch_pin_allow_untried"):
            patches.refuse_untried([patch], names)
    else:
        patches.refuse_untried([patch], names)


def test_a_file_the_image_already_carries_is_not_mounted():
    assert patches.place(PATCH, FOUND, "/srv/p")["mount"] is True
    assert patches.place(PATCH, FOUND | {"sha256": PATCH["sha256"]}, "/srv/p")["mount"] is False


def test_a_patch_that_replaces_nothing_is_refused():
    with pytest.raises(patches.PatchError, match="correct the target"):
        patches.place(PATCH, FOUND | {"sha256": None}, "/srv/p")
    with pytest.raises(patches.PatchError, match="no such package"):
        patches.place(PATCH, {"target": None, "md5": None, "sha256": None}, "/srv/p")


def test_the_package_of_a_path():
    assert patches.package_of("vllm/model_executor/x.py") == "vllm"
    with pytest.raises(patches.PatchError, match="package"):
        patches.package_of("../x.py")


def probe(tmp_path, package, files):
    """The probe as the image runs it: a fresh interpreter that sees only tmp_path."""
    wanted = json.dumps({"package": package, "files": files})
    ran = subprocess.run(
        [sys.executable, "-c", patches.PROBE, wanted],
        env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(ran.stdout)


def test_the_probe_finds_the_file_without_importing_the_package(tmp_path):
    models = tmp_path / "pkg" / "models"
    models.mkdir(parents=True)
    (tmp_path / "pkg" / "__init__.py").write_text("raise RuntimeError('imported')")
    (models / "gemma4_mtp.py").write_bytes(CONTENT)
    said = probe(
        tmp_path,
        "pkg",
        {PATCH["path"]: None, "pkg/absent.py": None, "named.py": str(models / "gemma4_mtp.py")},
    )
    assert said["directory"] == str(tmp_path / "pkg")
    assert said["files"][PATCH["path"]] == {
        "target": str(models / "gemma4_mtp.py"), "md5": PATCH["md5"], "sha256": PATCH["sha256"],
    }  # fmt: skip
    assert said["files"]["pkg/absent.py"]["sha256"] is None
    assert said["files"]["named.py"]["sha256"] == PATCH["sha256"]


def test_the_probe_says_when_there_is_no_such_package(tmp_path):
    said = probe(tmp_path, "no_such_package", {"no_such_package/x.py": None})
    assert said == {
        "directory": None, "version": None,
        "files": {"no_such_package/x.py": {"target": None, "md5": None, "sha256": None}},
    }  # fmt: skip
