# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that serves: the files it loaded, what it says it runs with, and how often its draft is right. Pure.

container.py compares the options of the process with the recipe. This file compares the answers of the process with the options
that *this* process got, so that one edit is one finding.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .._gate import diagnosis
from .._gate.container import State
from .._gate.diagnosis import CheckedFile
from .._vllm.argv import options
from .._vllm.log import Speculation
from .._vllm.metrics import Counters, delta
from .finding import Finding

CACHE_LABELS = {
    "kv-cache-dtype": "cache_dtype",
    "gpu-memory-utilization": "gpu_memory_utilization",
    "enable-prefix-caching": "enable_prefix_caching",
    "num-gpu-blocks-override": "num_gpu_blocks_override",
    "kv-cache-memory-bytes": "kv_cache_memory_bytes",
    "calculate-kv-scales": "calculate_kv_scales",
}
"""Options whose value vLLM publishes unchanged: fields of its CacheConfig, labels of vllm:cache_config_info. Options that it
resolves by itself, like the block size, are left out."""
_DTYPES = {"fp8": "fp8_e4m3"}
_CODE = ("/usr/", "/opt/")
_EDITABLE = (".py", ".pth", ".so", ".json", ".jinja")
_ADDED, _REMOVED = 1, 2
RESTART = "playbooks/site.yml starts it again with what is there now, and measures it"
# A restart mounts everything anew, but keeps what was written into the container. A run does not look into a container where nothing
# else has changed.
ANEW = "playbooks/site.yml -e spark_look_again=true makes the container anew and measures it"


def files(checked: Sequence[CheckedFile], state: State, patched: bool) -> list[Finding]:
    """The patched files as the process sees them.

    If a mount shows the wrong bytes that the store holds, the finding about the store is enough.

    :param patched: whether the store holds the locked files
    """
    found = []
    for file in checked:
        name = posixpath.basename(file.wanted.path)
        if not file.ok:
            if file.host is not None and file.seen.md5 is not None and file.host.md5 == file.seen.md5:
                continue
            seen = file.seen.error or f"md5 {file.seen.md5}"
            found.append(
                Finding(
                    "patches",
                    "patch-in-container",
                    f"{name}: md5 {file.wanted.md5}",
                    f"{name}: {seen}",
                    ANEW,
                )
            )
        # Replacing a file in the store takes the name of the mounted one. That changes its ctime, not its bytes.
        elif patched and file.seen.changed is not None and file.seen.changed > state.started:
            late = file.seen.changed - state.started
            found.append(
                Finding(
                    "patches",
                    "file-newer-than-process",
                    f"{name}: unchanged since before {state.started_at}",
                    f"{name}: changed {late:.0f} s after the process started, which may have loaded something else",
                    ANEW,
                )
            )
    return found


def program_files(changes: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    """Program files that somebody changed inside a container: path -> added, removed or changed.

    :param changes: the engine's list of what differs from the image, ``{Path, Kind}`` (0 changed, 1 added, 2 removed)
    """
    listed = list(changes or [])
    folders = {parent for entry in listed for parent in _parents(entry["Path"])}
    return {
        entry["Path"]: {_ADDED: "added", _REMOVED: "removed"}.get(entry["Kind"], "changed")
        for entry in listed
        if entry["Path"] not in folders
        and entry["Path"].startswith(_CODE)
        and entry["Path"].endswith(_EDITABLE)
    }


def edited(changes: Iterable[Mapping[str, Any]] | None, known: Iterable[str]) -> list[Finding]:
    """Program files that somebody changed inside the container.

    :param changes: see :func:`program_files`
    :param known: files with a check of their own
    """
    return [
        Finding("container", "file-in-container", f"{path} as the image has it", f"{path} {what} since", ANEW)
        for path, what in program_files(changes).items()
        if path not in set(known)
    ]


def _parents(path: str) -> Iterator[str]:
    while path not in ("/", ""):
        path = posixpath.dirname(path)
        yield path


def stale_mounts(stale: Iterable[str], models: Collection[str]) -> list[Finding]:
    """Mounts that were replaced on the host: the process still has what was there at its start.

    :param models: where models are mounted
    """
    return [
        Finding(
            "models" if target in models else "container",
            "mount-stale",
            f"{target} in the container is what the host has now",
            "the container holds what was there before, replaced since it started",
            RESTART,
        )
        for target in stale
    ]


# -- what it says of itself


def answers(argv: Sequence[str], names: Sequence[str]) -> list[Finding]:
    """Whether the server that answers on the port is the one of this argv."""
    given = options(list(argv))
    expected = given.get("served-model-name") or given.get("", ())[-1:]
    if not expected or set(expected) <= set(names):
        return []
    seen = ", ".join(names) or "no model at all"
    do = "see what else listens on this port: ss -ltnp"
    return [Finding("server", "wrong-server", f"/v1/models names {', '.join(expected)}", seen, do)]


def cache_config(argv: Sequence[str], labels: Mapping[str, str]) -> list[Finding]:
    """Whether vLLM runs with the cache options that it got; `labels` are those of vllm:cache_config_info."""
    found = []
    for name, values in options(list(argv)).items():
        label = CACHE_LABELS.get(name)
        if label is None or label not in labels or values == ("auto",):
            continue
        value = values[0] if values else "true"
        if not _same(value, labels[label]):
            found.append(
                Finding(
                    "server",
                    "effective-config",
                    f"--{name} {value}, as it was given",
                    f"vLLM says {label}={labels[label]}",
                    "read its log for why it did otherwise, then correct the recipe: docker logs",
                )
            )
    return found


def _same(given: str, said: str) -> bool:
    try:
        return float(given) == float(said)
    except ValueError:
        left, right = given.lower(), said.lower()
        return _DTYPES.get(left, left) == _DTYPES.get(right, right)


def speculation(
    given: Mapping[str, Any] | None, counters: Counters, log: Speculation, argv: Sequence[str]
) -> list[Finding]:
    """Whether it speculates as it was asked to."""
    wrong = diagnosis.speculation_set_up(given, counters, log, argv)
    if wrong is None:
        return []
    return [Finding("server", wrong.code.replace("_", "-"), wrong.expected, wrong.seen, wrong.do)]


def acceptance(counters: Counters, floor: float, minimum: int) -> list[Finding]:
    """The rate at position 0 since the process started. Fewer drafts than `minimum` give no finding."""
    since = delta(Counters(), counters)
    if since.drafts < max(1, minimum) or since.acceptance_rate >= floor:
        return []
    return [
        Finding(
            "server",
            "acceptance",
            f"at least {floor:.0%} of the drafts accepted at position 0",
            f"{since.acceptance_rate:.1%} of {since.drafts} drafts since the process started",
            "playbooks/verify.yml measures with prompts of its own and says what is wrong",
        )
    ]


def not_answering(problem: str) -> Finding:
    do = "docker logs says what it does; systemctl restart of its unit starts it again"
    return Finding("server", "not-answering", "/health answers 200", problem, do)


def neighbours(names: Iterable[str]) -> list[Finding]:
    """Other containers on the GPU. GPU memory is the host's, so the server lacks what they take."""
    return [
        Finding(
            "host",
            "gpu-shared",
            "no other container has a GPU",
            f"container {name} runs with one",
            f"docker stop {name}, or leave room for it: gpu-memory-utilization of the recipe",
            "warning",
        )
        for name in names
    ]
