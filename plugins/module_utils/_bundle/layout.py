# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle: one directory that holds all a recipe needs from outside. The one home of its layout.

    <bundle>/bundle.json                        what is in it; written last, so without it the bundle is not whole
             recipe.yml  lock.yml               as the controller has them
             patches/<sha256>/<file>            as in the store
             models/<org>--<name>/<commit>/…    as in the store
             registry/docker/registry/v2/…      the image, as docker-registry keeps it
             simple/<name>/<wheel>              Python packages, as an index (PEP 503)
             packages/<package>.deb
             .incoming/  .lock  .verified.json  of the module that makes it

bundle.json lists what was written, so that damage on the way shows. Only the lock says what may be used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .._common import json_text, pinned
from .._common.copying import bring
from .._common.files import alterable
from .._common.paths import snapshot_path
from .._images import oci
from .._images.reference import parse_reference
from .._models.manifest import SHA256, File, Manifest, path_problems

VERSION = 1
CONTENTS, RECIPE, LOCK = "bundle.json", "recipe.yml", "lock.yml"
REGISTRY, WHEELS, PACKAGES, PATCHES = "registry", "simple", "packages", "patches"
_TEXTS = ("recipe", "created", "machine", "python", "image")
_LISTS = ("requirements", "packages")


class BundleError(Exception):
    """A bundle cannot be made or used; the text says what was expected, seen, and what to do."""


@dataclass(frozen=True)
class Bundle:
    """What bundle.json says.

    `machine` and `python` (``aarch64``, ``3.12``) are those of the host that made it. Only such a host can use its
    wheels. `created` is a time in UTC, `image` the image by digest, `files` {path below the bundle: File}.
    """

    recipe: str
    created: str
    machine: str
    python: str
    image: str
    requirements: tuple[str, ...]
    packages: tuple[str, ...]
    files: Mapping[str, File]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())

    def render(self) -> str:
        """The text of bundle.json: same bundle, same bytes."""
        data = {"version": VERSION, **asdict(self)}
        data["files"] = {path: asdict(self.files[path]) for path in sorted(self.files)}
        return json.dumps(data, indent=1) + "\n"


def parse(text: str, source: str) -> Bundle:
    """:raises BundleError: not the text of a bundle.json that this release understands"""

    def wrong(expected: str, seen: str) -> BundleError:
        return BundleError(f"{source}: expected {expected}, seen {seen}; make the bundle again")

    try:
        data = json_text.read(text, source)
    except json_text.JsonError as error:
        raise wrong("JSON", error.reason) from error
    if not isinstance(data, dict) or data.get("version") != VERSION:
        seen = data.get("version") if isinstance(data, dict) else data
        raise wrong(f"a bundle of version {VERSION}", f"{seen!r}")
    for key in _TEXTS:
        if not isinstance(data.get(key), str):
            raise wrong(f"{key} as text", repr(data.get(key)))
    for key in _LISTS:
        if not isinstance(data.get(key), list) or not all(isinstance(item, str) for item in data[key]):
            raise wrong(f"{key} as a list of text", repr(data.get(key))[:80])
    if not isinstance(data.get("files"), dict):
        raise wrong("files as a mapping of paths to size and sha256", repr(data.get("files"))[:80])
    files: dict[str, File] = {}
    for path, entry in data["files"].items():
        for problem in path_problems(path):
            raise wrong("paths that stay inside", problem)
        size, sha256 = (entry.get("size"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
        if not isinstance(size, int) or not isinstance(sha256, str) or not re.fullmatch(SHA256, sha256):
            raise wrong(f"size and sha256 of {path}", repr(entry)[:120])
        files[path] = File(size, sha256)
    for path in (RECIPE, LOCK):
        if path not in files:
            raise wrong(f"{path} among its files", f"{len(files)} files without it")
    return Bundle(
        recipe=data["recipe"],
        created=data["created"],
        machine=data["machine"],
        python=data["python"],
        image=data["image"],
        requirements=tuple(data["requirements"]),
        packages=tuple(data["packages"]),
        files=files,
    )


def read(folder: Path) -> Bundle | None:
    """The bundle in a directory; None when there is no such directory.

    :raises BundleError: the directory is there, and no bundle is in it
    """
    if not folder.is_dir():
        return None
    try:
        text = (folder / CONTENTS).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(
            f"{folder}: expected a whole bundle, seen no {CONTENTS}: it is not one, or making or copying it was cut "
            "short; run playbooks/bundle.yml again, or copy it again"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{folder / CONTENTS}: expected a file that can be read, seen {error}; copy the bundle again"
        ) from error
    return parse(text, str(folder / CONTENTS))


def section(path: str) -> str:
    """The part of a bundle that a file belongs to, named for people."""
    return {REGISTRY: "image", WHEELS: "Python packages", PACKAGES: "system packages"}.get(
        path.partition("/")[0], path.partition("/")[0]
    )


def summary(bundle: Bundle) -> list[str]:
    """What is in it, one line per section, for people."""
    sizes: dict[str, list[int]] = {}
    for path in sorted(bundle.files):
        sizes.setdefault(section(path), []).append(bundle.files[path].size)
    lines = [
        f"{name}: {len(found)} file{'s' if len(found) != 1 else ''}, {sum(found) / 1e6:.1f} MB"
        for name, found in sizes.items()
    ]
    return [
        f"recipe {bundle.recipe}, image {bundle.image}, for {bundle.machine} with Python {bundle.python}",
        *lines,
    ]


def is_text(path: str) -> bool:
    """Whether the controller reads the file: recipe, lock, patches."""
    return path in (RECIPE, LOCK) or path.startswith(f"{PATCHES}/")


def wheels(bundle: Bundle) -> list[str]:
    """The Python packages as requirements with hashes, so that a host accepts exactly these bytes.

    :raises BundleError: a file among them is no wheel
    """
    files = {
        path.rpartition("/")[2]: file.sha256
        for path, file in bundle.files.items()
        if path.startswith(f"{WHEELS}/")
    }
    try:
        return pinned.of_wheels(files)
    except ValueError as error:
        raise BundleError(f"{CONTENTS}: {error}; make the bundle again") from error


def damaged_by_size(folder: Path, files: Iterable[tuple[str, File]]) -> list[str]:
    """Problems that need no reading, in words: files that are missing, not regular, or of another size."""
    problems = []
    for path, file in files:
        try:
            status = os.lstat(folder / path)
        except OSError as error:
            problems.append(f"{path}: expected {file.size} bytes, seen {error.strerror}")
            continue
        if not stat.S_ISREG(status.st_mode):
            problems.append(f"{path}: expected a regular file, seen {stat.filemode(status.st_mode)}")
        elif status.st_size != file.size:
            problems.append(f"{path}: expected {file.size} bytes, seen {status.st_size}")
    return problems


def refuse_alterable(folder: Path, bundle: Bundle) -> None:
    """:raises BundleError: others than root may alter the bundle; its wheels and packages are run as root"""
    paths = [folder, *(folder / path for path in (CONTENTS, *bundle.files))]
    folders = {parent for path in paths[1:] for parent in path.parents if parent.is_relative_to(folder)}
    for path in sorted({*paths, *folders}):
        if path.exists() and (who := alterable(path)):
            raise BundleError(
                f"{folder}: expected a bundle that root alone may alter, seen {path} {who}; if you trust it, "
                f"copy it as root, or chown -R root:root {folder} and chmod -R o-w {folder}. Nothing of it was used"
            )


def damaged(folder: Path, problems: list[str]) -> BundleError:
    """The error about damaged files: it names the first few."""
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return BundleError(
        f"{folder}: expected the files that {CONTENTS} names, seen {len(problems)} damaged: "
        f"{'; '.join(problems[:5])}{more}; copy the bundle again, or make it again. Nothing of it was used"
    )


def image_files(storage: Path, image: str, machine: str) -> dict[str, File]:
    """{path below the registry's storage: File} of an image, as its manifests there list them. Compares no other file.

    :param image: by digest
    :param machine: as ``uname -m`` prints it
    :raises BundleError: its manifests are not there, or do not match their digests
    """
    reference = parse_reference(image)
    digest = reference.digest or ""

    def manifest(digest: str) -> bytes:
        path = storage / oci.blob_path(digest)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{path}: expected a manifest of {image}, seen {error.strerror}; the bundle does not hold this image"
            ) from error
        if (seen := hashlib.sha256(content).hexdigest()) != digest.partition(":")[2]:
            raise BundleError(
                f"{path}: expected {digest}, seen sha256 {seen}: it is damaged; copy the bundle again, or make it again"
            )
        return content

    try:
        held = oci.read_image(digest, oci.ARCHITECTURES.get(machine, machine), manifest)
        # The source may have had no attestation. The image serves without one.
        here = [one for one in held.attestations if (storage / oci.blob_path(one)).exists()]
        held = held.attested({one: manifest(one) for one in here})
    except oci.ImageError as error:
        raise BundleError(str(error)) from error
    sizes = {blob.digest: blob.size for blob in held.blobs}
    sizes.update({digest: len(content) for digest, content in held.manifests.items()})
    files = {oci.blob_path(digest): File(size, digest.partition(":")[2]) for digest, size in sizes.items()}
    for link, content in image_links(reference.repository, sizes, held.manifests).items():
        files[link] = File(len(content), hashlib.sha256(content.encode()).hexdigest())
    return files


def image_links(repository: str, digests: Iterable[str], manifests: Iterable[str]) -> dict[str, str]:
    """The links that give a repository these digests, {path below the registry's storage: content}."""
    of_manifests = set(manifests)
    return {
        (oci.manifest_link if digest in of_manifests else oci.layer_link)(repository, digest): digest
        for digest in digests
    }


@dataclass(frozen=True)
class BundleFetcher:
    """Snapshot files from a bundle instead of the Hub. The caller verifies the hash."""

    folder: Path
    resumes = False
    blame = "the bundle is damaged there: copy it again, or make it again"

    def fetch(self, manifest: Manifest, path: str, target: Path, received: Callable[[int], None]) -> None:
        """:raises BundleError: the file is not there or cannot be read"""
        source = Path(snapshot_path(str(self.folder), manifest.repository, manifest.commit)) / path
        try:
            bring(source, target, received)
        except OSError as error:
            if error.filename and Path(error.filename) == target:
                raise
            raise BundleError(
                f"{source}: expected a file of {manifest.files[path].size} bytes, seen {error.strerror}; "
                "this bundle is not whole, or another recipe's: copy it again, or make it again"
            ) from error
