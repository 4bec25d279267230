# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a patch on an image: mounted, already there, or refused. Pure functions of data."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .._common import json_text

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]{0,99}")
# Paths as Python installations have them, without a character that a volume's string or a shell would read in another way.
_PATH = re.compile(r"(?:/[A-Za-z0-9._+@-]+){1,64}")
_MD5, _SHA256 = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")

# Runs inside the image, without importing the package (that would need a GPU in a CUDA image). Prints one
# JSON line: where the package is, its version, and for each wanted file whether it is there and its hashes.
PROBE = r"""
import hashlib, importlib.metadata, importlib.util, json, os, sys
wanted = json.loads(sys.argv[1])
spec = importlib.util.find_spec(wanted["package"])
directory = os.path.dirname(spec.origin) if spec and spec.origin else None
try:
    version = importlib.metadata.version(wanted["package"])
except importlib.metadata.PackageNotFoundError:
    version = None
files = {}
for path, target in wanted["files"].items():
    if target is None and directory is not None:
        target = os.path.join(os.path.dirname(directory), path)
    found = {"target": target, "md5": None, "sha256": None}
    if target and os.path.isfile(target):
        data = open(target, "rb").read()
        found["md5"] = hashlib.md5(data, usedforsecurity=False).hexdigest()
        found["sha256"] = hashlib.sha256(data).hexdigest()
    files[path] = found
print(json.dumps({"directory": directory, "version": version, "files": files}))
"""


class PatchError(ValueError):
    """A patch that must not be used; the text says what was expected, seen, and what to do."""


def no_answer(image: str, seen: str) -> PatchError:
    return PatchError(
        f"expected python3 in image {image} to look for the file to replace, seen: {seen}; name an image that "
        "holds the patched package, or use a recipe with patches: []"
    )


def question(patches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The probe's question about all patches: the package, and for each path its target (None: to be found).

    :raises PatchError: a path outside a package
    """
    return {
        "package": package_of(patches[0]["path"]),
        "files": {patch["path"]: patch["target"] for patch in patches},
    }


def name_of(asked: Mapping[str, Any]) -> str:
    """A file name for the answer. It differs for another question, or another probe."""
    return hashlib.sha256(json.dumps([PROBE, asked], sort_keys=True).encode()).hexdigest()[:16]


def remembered(asked: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """The text that `recalled` reads."""
    return json.dumps({"question": asked, "answer": answer}, indent=2, sort_keys=True) + "\n"


def recalled(text: bytes | str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The complete answer to exactly that question; None: ask again."""
    try:
        held = json_text.read(text, "the answer")
    except json_text.JsonError:
        return None
    if not isinstance(held, dict) or held.get("question") != asked or wrong(held.get("answer"), asked):
        return None
    return dict(held["answer"])


def answer(said: str, asked: Mapping[str, Any], image: str) -> dict[str, Any]:
    """The probe's answer. Any code of the image may have printed it instead, so this checks it.

    :raises PatchError: it is not an answer to that question
    """
    try:
        told = json_text.read(said, "the answer")
        problem = wrong(told, asked)
    except json_text.JsonError:
        problem = f"no JSON but {said[:80]!r}"
    if problem:
        raise no_answer(image, problem)
    return dict(told)


def wrong(told: Any, asked: Mapping[str, Any]) -> str:
    """What differs in an answer from what :data:`PROBE` gives; empty for a good one."""
    if not isinstance(told, dict) or set(told) != {"directory", "version", "files"}:
        return f"an answer of another shape, {str(told)[:80]!r}"
    version, directory, files = told["version"], told["directory"], told["files"]
    if version is not None and not (isinstance(version, str) and _VERSION.fullmatch(version)):
        return f"the version {str(version)[:80]!r}"
    if directory is not None and not _is_path(directory):
        return f"the directory {str(directory)[:80]!r}"
    if not isinstance(files, dict) or set(files) != set(asked["files"]):
        return f"other files than asked for, {str(files)[:80]!r}"
    for path, target in asked["files"].items():
        found = files[path]
        if not isinstance(found, dict) or set(found) != {"target", "md5", "sha256"}:
            return f"{path} of another shape, {str(found)[:80]!r}"
        hashes = found["md5"], found["sha256"]
        if hashes != (None, None) and not all(map(_is_hash, hashes, (_MD5, _SHA256))):
            return f"hashes of {path} that are none, {str(hashes)[:80]!r}"
        if not _is_target(found["target"], path, target, directory):
            return f"the target {str(found['target'])[:80]!r} for {path}"
    return ""


def _is_target(found: Any, path: str, asked: str | None, directory: str | None) -> bool:
    """Whether the file is the one asked for, or lies in the package. Its path becomes part of a mount."""
    if asked is not None:
        return bool(found == asked)
    if directory is None:
        return found is None
    return _is_path(found) and bool(found == posixpath.join(posixpath.dirname(directory), path))


def _is_path(text: Any) -> bool:
    return isinstance(text, str) and bool(_PATH.fullmatch(text)) and posixpath.normpath(text) == text


def _is_hash(text: Any, digits: re.Pattern[str]) -> bool:
    return isinstance(text, str) and bool(digits.fullmatch(text))


def check_content(patch: Mapping[str, Any], content: bytes) -> None:
    """Compare fetched bytes with the lock.

    :raises PatchError: sha256 or md5 differ from the locked values
    """
    sha256 = hashlib.sha256(content).hexdigest()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if sha256 != patch["sha256"] or md5 != patch["md5"]:
        raise PatchError(
            f"{patch['name']}: expected md5 {patch['md5']} (sha256 {patch['sha256']}), "
            f"seen md5 {md5} (sha256 {sha256}); the file is not the locked one: fetch it again, "
            "or run playbooks/lock.yml if the change is wanted"
        )


def untried(patch: Mapping[str, Any], image_names: Sequence[str]) -> bool:
    """Whether the patch names images that it was tried with, and none of `image_names` is among them.

    A name matches as a whole (``repo:tag``, ``repo@sha256:…``) or as a bare digest (``sha256:…``).
    """
    tried = set(patch.get("tried_with") or [])
    names = set(image_names) | {name.split("@", 1)[1] for name in image_names if "@" in name}
    return bool(tried) and not tried & names


def refuse_untried(patches: Sequence[Mapping[str, Any]], image_names: Sequence[str]) -> None:
    """:raises PatchError: a patch that was not tried with this image"""
    for patch in patches:
        if untried(patch, image_names):
            raise PatchError(
                f"{patch['name']}: expected an image it was tried with ({', '.join(patch['tried_with'])}), "
                f"seen {', '.join(image_names)}; a patch is a dated workaround for one image: use a tried image, or set "
                "patch_pin_allow_untried: true and watch the acceptance rate"
            )


def place(patch: Mapping[str, Any], found: Mapping[str, Any], host_path: str) -> dict[str, Any]:
    """How to apply one patch to one image.

    :param found: ``{target, md5, sha256}`` of the file in the image; hashes are None when it is not there
    :returns: ``{name, host_path, target, md5, sha256, mount, image_md5}``; `mount` is false when the image
        already carries the very file
    :raises PatchError: there is no file to replace, and a bind mount would create one that nothing imports
    """
    if found["sha256"] is None:
        raise PatchError(
            f"{patch['name']}: expected a file to replace at {found['target'] or patch['path']} in the image, "
            "seen none, so nothing would load the patch; "
            + (
                "correct the target in the recipe"
                if found["target"]
                else "the image holds no such package: name the target"
            )
        )
    return {
        "name": patch["name"],
        "host_path": host_path,
        "target": found["target"],
        "md5": patch["md5"],
        "sha256": patch["sha256"],
        "mount": found["sha256"] != patch["sha256"],
        "image_md5": found["md5"],
    }


def package_of(path: str) -> str:
    """The top-level Python package of a repository path (``vllm/model_executor/x.py`` -> ``vllm``)."""
    package = path.split("/", 1)[0]
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", package):
        raise PatchError(f"path: expected package/…/file.py inside the repository, got {path!r}")
    return package
