# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a patch on an image: mounted, already there, or refused. Pure functions of data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .._common import json_text, shape

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


_ANSWER = {"directory": shape.Maybe(str), "version": shape.Maybe(str)}
_FOUND = {"target": shape.Maybe(str), "md5": shape.Maybe(str), "sha256": shape.Maybe(str)}
_MOUNTABLE = re.compile(r"(?:/(?!\.\.?/)[^/:\x00-\x1f]+)+")


def question(patches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the probe is asked about all patches: the package, and for each path its target (None: to be found).

    :raises PatchError: a path outside a package
    """
    return {
        "package": package_of(patches[0]["path"]),
        "files": {patch["path"]: patch["target"] for patch in patches},
    }


def name_of(asked: Mapping[str, Any]) -> str:
    """A file name for the answer: another question, or another probe, has another one."""
    return hashlib.sha256(json.dumps([PROBE, asked], sort_keys=True).encode()).hexdigest()[:16]


def remembered(asked: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """The text that `recalled` reads."""
    return json.dumps({"question": asked, "answer": answer}, indent=2, sort_keys=True) + "\n"


def recalled(text: bytes | str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer to just that question, with all its parts; None: ask again."""
    try:
        held = json_text.read(text, "the answer")
    except json_text.JsonError:
        return None
    if not isinstance(held, dict) or held.get("question") != asked or _unfit(held.get("answer"), asked):
        return None
    return dict(held["answer"])


def heard(said: bytes, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the probe printed. Whatever the image runs in its place may have printed it.

    :raises PatchError: it is no answer to the question
    """
    try:
        answer = json_text.read(said, "the answer")
        unfit = _unfit(answer, asked)
    except json_text.JsonError as error:
        unfit = str(error)
    if unfit:
        raise PatchError(
            f"expected python3 of the image to say where the file to replace is, seen something else: {unfit}; use an image "
            "whose python3 is Python"
        )
    return dict(answer)


def _unfit(answer: Any, asked: Mapping[str, Any]) -> str:
    """Why it is no answer to the question; empty for one. A target becomes a mount, so it must be the path that was asked for."""
    if wrong := shape.wrong(answer, {**_ANSWER, "files": dict.fromkeys(asked["files"], _FOUND)}):
        return wrong
    if absent := sorted(_ANSWER.keys() - answer.keys()):
        return f"no {absent[0]}"
    for path, wanted in asked["files"].items():
        if absent := sorted(_FOUND.keys() - answer["files"][path].keys()):
            return f"files.{path}: no {absent[0]}"
        target = answer["files"][path]["target"]
        if target is None and answer["files"][path]["sha256"] is not None:
            return f"files.{path}: a file without a path"
        inside = wanted or (target or "").endswith(f"/{path}")
        if target is not None and not (inside and _MOUNTABLE.fullmatch(target) and wanted in (None, target)):
            return f"files.{path}.target: expected {wanted or f'the absolute path of {path}'}, seen {target!r:.200}"
    return ""


class PatchError(ValueError):
    """A patch that must not be used; the text says what was expected, seen, and what to do."""


def check_content(patch: Mapping[str, Any], content: bytes) -> None:
    """Hold fetched bytes against the lock.

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
    """Whether the patch names images it was tried with and none of `image_names` is among them.

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
    """How one patch meets one image.

    :param found: ``{target, md5, sha256}`` of the file in the image; hashes are None when it is not there
    :returns: ``{name, host_path, target, md5, sha256, mount, image_md5}``; `mount` is false when the image
        already carries the very file
    :raises PatchError: no file to replace: a bind mount would create one that nothing imports
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
