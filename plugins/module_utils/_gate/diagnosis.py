# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a server, as functions of what was observed. Each gives a Finding, or None when all is well.

The gate (module_utils/_gate/gate.py) observes; nothing here does.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._vllm.log import ASKED_TO_STOP, Speculation, Transport
from .._vllm.metrics import Counters, Delta
from .container import FileSeen, State

FOREIGN_SHARE = 0.05
"""Largest share of the generated tokens that may be other people's. Above it a measured rate is theirs as much as ours."""
UNDECIDED = 2.0
"""Standard errors: a rate nearer to the floor than this could lie on the other side of it (95 %)."""
EXTEND = 4
"""An undecided measurement goes on up to this many times the minimum of drafts; then the estimate decides."""
REACHED = 50
"""Least number of drafts that were right up to a position, for a judgment about the next one."""
ALIVE = 1 / 3
"""Least share of these for a position to be of use. The drafts in docs/recipes.md that people measured keep more than half."""


@dataclass(frozen=True)
class Finding:
    """Why a server does not pass. `code` is stable: playbooks and tests compare it."""

    code: str
    summary: str
    expected: str
    seen: str
    do: str

    def __str__(self) -> str:
        return f"{self.summary}\nexpected: {self.expected}\nseen: {self.seen}\ndo next: {self.do}"


@dataclass(frozen=True)
class Wanted:
    """What the server is compared with: the options of spec_decode_assert."""

    container: str
    served_model: str
    files: tuple[WantedFile, ...] = ()
    speculation: Mapping[str, Any] | None = None
    acceptance_floor: float = 0.0
    minimum_drafts: int = 200
    max_tokens: int = 256
    concurrency: int = 1
    ready_timeout: float = 1200
    idle_timeout: float = 300
    measure_timeout: float = 900
    foreign_traffic: str = "fail"
    image: str = ""
    """By digest; empty for any"""
    headless: bool = False
    """A worker of a unit: it answers nobody"""


@dataclass(frozen=True)
class WantedFile:
    path: str
    md5: str | None = None
    sha256: str | None = None
    host_path: str | None = None

    def matches(self, seen: FileSeen) -> bool:
        """Whether the content was read and matches every locked checksum."""
        return seen.error is None and self.md5 in (None, seen.md5) and self.sha256 in (None, seen.sha256)


@dataclass(frozen=True)
class CheckedFile:
    """A wanted file, with the one in the container and the one on the host."""

    wanted: WantedFile
    seen: FileSeen
    host: FileSeen | None = None
    mounted_from: str | None = None

    @property
    def ok(self) -> bool:
        return self.wanted.matches(self.seen)


@dataclass(frozen=True)
class Traffic:
    """What our own requests account for, to compare with server-wide counters."""

    requests: int
    tokens: int


def missing(wanted: Wanted) -> Finding:
    return Finding(
        "container_missing",
        f"there is no container {wanted.container}",
        f"a running container named {wanted.container}",
        "the Docker engine of this host has none of that name",
        "start it with playbooks/site.yml, or correct the name",
    )


def image(wanted: Wanted, state: State) -> Finding | None:
    """A registry's name may differ, the digest may not."""
    if not wanted.image or wanted.image.partition("@")[2] == state.image.partition("@")[2]:
        return None
    return Finding(
        "wrong_image",
        f"container {wanted.container} was started from another image",
        wanted.image,
        state.image or "no image",
        "start it with playbooks/site.yml, and see who else starts containers on this host",
    )


def running(state: State) -> bool:
    return state.status == "running"


def same_life(bound: State, now: State | None) -> bool:
    """Whether `now` is the very process that was bound: same container, same start, still running."""
    return now is not None and (bound.id, bound.started_at) == (now.id, now.started_at) and running(now)


def ended(wanted: Wanted, bound: State, now: State | None, reason: str | None) -> Finding:
    """The bound server is gone: replaced, restarted, or dead of `reason`."""
    expected = f"container {wanted.container} ({bound.id[:12]}, started {bound.started_at}) to run throughout"
    if now is not None and now.id != bound.id:
        return Finding(
            "server_replaced",
            f"container {wanted.container} was replaced while it was being checked",
            expected,
            f"another container of that name: {now.id[:12]}, started {now.started_at}",
            "see who else deploys to this host, then run again",
        )
    if now is not None and running(now) and reason in (None, ASKED_TO_STOP):
        return Finding(
            "server_restarted",
            f"container {wanted.container} was restarted while it was being checked",
            expected,
            f"started {now.started_at}, no error in the log before",
            f"see who or what restarts it (journalctl -u {wanted.container}), then run again",
        )
    if now is not None and now.status in ("created", "paused"):
        return Finding(
            "container_not_running",
            f"container {wanted.container} is {now.status}",
            expected,
            f"status {now.status}" + (f": {now.error}" if now.error else ""),
            f"docker {'unpause' if now.status == 'paused' else 'start'} {wanted.container}, or playbooks/site.yml",
        )
    if now is None:
        how = "the container was removed"
    elif now.oom_killed:
        how = "killed: out of memory"
    elif now.status in ("restarting", "running"):
        how = f"it is being restarted by the engine ({now.restarts} times so far)"
    else:
        how = f"{now.status} with exit code {now.exit_code}" + (f", {now.error}" if now.error else "")
    seen = f"{how}: {reason}" if reason else f"{how}; the log names no reason"
    do = _cure(
        f"{reason} {how}".lower(),
        f"docker logs {wanted.container}" if now else "the log of the Docker engine",
    )
    return Finding("server_died", f"vLLM died: {reason or how}", expected, seen, do)


_CURES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), cure)
    for pattern, cure in [
        # From specific to general, whole messages: a word that is in many of them proves nothing.
        (
            r"speculativeconfig|--speculative-config",
            "correct speculative-config in the recipe's serve arguments",
        ),
        (r"unrecognized arguments|argument -|validationerror", "correct the recipe's serve arguments"),
        (
            r"kv cache is needed|larger than the available kv cache memory|no available memory for the cache blocks",
            "raise gpu-memory-utilization, or lower max-model-len",
        ),
        (
            r"out of memory|free memory on device|outofmemory",
            "free memory on the host, or lower gpu-memory-utilization or max-model-len",
        ),
        (
            # vLLM's words for an engine that ended without an exception while it served.
            r"signal 9 \(sigkill\)|died unexpectedly",
            "see dmesg on the host: the kernel kills what takes the last memory. If it did, free memory on the host, or lower "
            "gpu-memory-utilization or max-model-len",
        ),
        (r"exec format error", "use the image of this host's architecture"),
        (
            r"size mismatch|shapes cannot be multiplied|loaded_weight",
            "weights and configuration do not fit: check that the draft was made for this body and both are whole",
        ),
        (
            r"is not defined for option 'gpu-name'|no kernel image is available|unsupported gpu architecture",
            "use an image whose CUDA toolkit knows this GPU",
        ),
        (
            r"nvidia driver on your system is too old",
            "update the host's driver, or use an image for an older CUDA",
        ),
        (r"address already in use", "see what else listens on the port of the recipe"),
    ]
)


def _cure(text: str, log: str) -> str:
    found = (cure for pattern, cure in _CURES if pattern.search(text))
    return next(found, f"see what happened before: {log}")


def not_ready(wanted: Wanted, why: str, phase: str | None, tail: Sequence[str]) -> Finding:
    lines = "".join(f"\n  {line}" for line in tail) or "\n  (the log is empty)"
    return Finding(
        "not_ready",
        f"vLLM was not ready: {why}",
        f"/health answers within {wanted.ready_timeout:g} s, with a sign of progress every {wanted.idle_timeout:g} s",
        f"{why}; last known phase: {phase or 'none'}; the log ends with{lines}",
        "if it was still getting on, raise ready_timeout or idle_timeout; else restart it and watch its log",
    )


def file_contents(files: Sequence[CheckedFile]) -> Finding | None:
    """The first file whose content, as the process sees it, is not the locked one."""
    for file in files:
        if file.ok:
            continue
        name = posixpath.basename(file.wanted.path)
        why, do = _why_not_applied(file)
        seen = f"in the container {file.seen.error or _sums(file.seen)}"
        if file.host:
            seen += f"; on the host {file.host.error or _sums(file.host)} ({file.wanted.host_path})"
        return Finding(
            "patch_not_applied",
            f"{name} in the container is not the locked file: {why}",
            f"{file.wanted.path} with {_sums(file.wanted)}",
            seen,
            do,
        )
    return None


def _sums(file: WantedFile | FileSeen) -> str:
    sums = {"md5": file.md5, "sha256": file.sha256}
    return " ".join(f"{name} {value}" for name, value in sums.items() if value)


def _why_not_applied(file: CheckedFile) -> tuple[str, str]:
    recreate = "recreate the container with playbooks/site.yml"
    if file.host is not None and not file.wanted.matches(file.host):
        return (
            "the file on the host is not the locked one either",
            "distribute the patch again: playbooks/site.yml",
        )
    if file.wanted.host_path is None:
        return (
            "the image was taken to carry it and does not",
            "let patch_pin mount the patch, or pin an image that has it",
        )
    if file.mounted_from is None:
        return "nothing is mounted there, so the image's own file is in use", recreate
    if file.mounted_from != file.wanted.host_path:
        return f"another file is mounted there, {file.mounted_from}", recreate
    return "the bind mount holds an older file than the host has now", recreate


def file_ages(files: Sequence[CheckedFile], state: State) -> Finding | None:
    """The first file that changed after the process started: the process may have loaded other bytes."""
    for file in files:
        if file.seen.changed is not None and file.seen.changed > state.started:
            name = posixpath.basename(file.wanted.path)
            late = file.seen.changed - state.started
            return Finding(
                "file_newer_than_process",
                f"{name} changed after vLLM started: the running process may have loaded something else",
                f"{file.wanted.path} unchanged since before {state.started_at}",
                f"changed {late:.0f} s after the start (its content now is the locked one)",
                "restart the container, so that it loads the file that is there",
            )
    return None


def unauthorized(status: int) -> Finding:
    return Finding(
        "unauthorized",
        "vLLM refuses the API key",
        "/v1/models to answer with the given api_key, or without one where the server has none",
        f"HTTP {status}",
        "pass the api_key that the container was started with",
    )


def model(wanted: Wanted, names: Sequence[str]) -> Finding | None:
    if wanted.served_model in names:
        return None
    return Finding(
        "wrong_model",
        f"{wanted.served_model} is not served here",
        f"/v1/models names {wanted.served_model}",
        f"{', '.join(names) or 'no model at all'}",
        "correct served-model-name, or see whether another server listens on this port",
    )


def completion_failed(wanted: Wanted, problem: str) -> Finding:
    return Finding(
        "completion_failed",
        "vLLM is healthy and does not answer a chat",
        f"a chat completion of {wanted.served_model} with text in it",
        problem,
        f"ask it yourself, and read its log{f': docker logs {wanted.container}' if wanted.container else ''}",
    )


def no_metrics(problem: str) -> Finding:
    return Finding(
        "metrics_unreadable",
        "the counters of vLLM cannot be read",
        "/metrics in the Prometheus text format",
        problem,
        "see whether something other than vLLM listens on this port",
    )


def speculation_set_up(
    wanted: Mapping[str, Any] | None, counters: Counters, log: Speculation, argv: Sequence[str]
) -> Finding | None:
    """Whether the server is set up to speculate as wanted, judged before any token by its series, its log and its arguments."""
    present = counters.drafts is not None
    if wanted is None:
        if not present:
            return None
        return Finding(
            "speculation_unexpected",
            "vLLM speculates, and the recipe has no speculation",
            "no vllm:spec_decode series on /metrics",
            f"the series are there; {_described(log)}",
            "recreate the container from the recipe, or give the recipe its speculative-config",
        )
    expected = f"speculative decoding ({_form(wanted)}) and its vllm:spec_decode series on /metrics"
    if not present:
        if counters.generated is None:
            return Finding(
                "speculation_absent",
                "vLLM publishes no counters, so nothing can be said of its speculation",
                expected,
                "no vllm series at all on /metrics",
                "remove disable-log-stats from the serve arguments",
            )
        given = [
            part for part in argv if part.startswith(("--speculative-config", "--speculative_config", "-sc"))
        ]
        if given or log.configured:
            return Finding(
                "speculation_ignored",
                "vLLM was given a speculative config and does not speculate",
                expected,
                f"no such series, though {'it was passed on the command line' if given else _described(log)}; {_described(log)}",
                "see whether this vLLM supports the method for this model: docker logs, lines on speculative",
            )
        return Finding(
            "speculation_absent",
            "vLLM was started without speculation",
            expected,
            f"no such series, no speculative-config on the command line; {_described(log)}",
            "recreate the container from the recipe",
        )
    return _mismatch(wanted, counters, log, expected)


def _mismatch(
    wanted: Mapping[str, Any], counters: Counters, log: Speculation, expected: str
) -> Finding | None:
    method, tokens = wanted.get("method"), wanted.get("num_speculative_tokens")
    seen = []
    # vLLM folds `<model>_mtp` into `mtp`: two names of one method.
    if (
        method
        and log.method
        and method != log.method
        and not (method.endswith("mtp") and log.method == "mtp")
    ):
        seen.append(f"method {log.method}")
    if tokens and counters.per_position and len(counters.per_position) != tokens:
        seen.append(f"counters for {len(counters.per_position)} draft positions")
    if not seen:
        return None
    return Finding(
        "speculation_mismatch",
        "vLLM speculates in another way than the recipe says",
        expected,
        " and ".join(seen),
        "recreate the container from the recipe; a draft that falls back to another method is not recognised as MTP",
    )


def _form(wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={wanted[key]}" for key in ("method", "num_speculative_tokens") if key in wanted)


def _described(log: Speculation) -> str:
    if log.configured is None:
        return "its log does not say"
    if not log.configured:
        return "its log says speculative_config=None"
    return f"its log says method={log.method}, num_speculative_tokens={log.num_speculative_tokens}"


def reset(bound: State) -> Finding:
    where = f"of the container started {bound.started_at}, " if bound.id else ""
    return Finding(
        "counters_reset",
        "the counters of vLLM were reset during the measurement",
        f"counters of one process, {where}that only grow",
        "another process_start_time_seconds, or a counter that fell"
        + (", in a container that was not restarted" if bound.id else ""),
        f"see what restarts the {'API server inside the container' if bound.id else 'server'}, then run again",
    )


def foreign_share(measured: Delta, ours: Traffic) -> float:
    """Share of the server's work meanwhile that our requests do not account for, 0 to 1."""
    shares = [0.0]
    if measured.generated:
        shares.append(1 - ours.tokens / measured.generated)
    if measured.finished and measured.generated is None:
        shares.append(1 - ours.requests / measured.finished)
    return max(shares)


def foreign(measured: Delta, ours: Traffic, share: float) -> Finding | None:
    if share <= FOREIGN_SHARE:
        return None
    return Finding(
        "foreign_traffic",
        f"{share:.0%} of the tokens that vLLM generated meanwhile were for somebody else",
        f"a server that answers this check alone: {ours.requests} requests, {ours.tokens} tokens",
        f"{measured.finished} requests, {measured.generated} tokens; the counters cannot tell them apart",
        "drain the server and run again, or accept a mixed measurement with foreign_traffic: warn",
    )


def speculation_works(
    wanted: Wanted, measured: Delta, ours: Traffic, files: Sequence[CheckedFile], log: Speculation
) -> Finding | None:
    """Whether drafts are made, accepted, and accepted often enough. The heart of the gate."""
    sample = _sample(ours)
    if measured.drafts == 0:
        return no_drafts(wanted, ours, log)
    if measured.accepted == 0:
        return Finding(
            "drafts_never_accepted",
            f"acceptance 0 of {measured.drafts} drafts: the draft loads but never agrees",
            _at_least(wanted),
            f"0 of {measured.drafts} drafts accepted in {sample}; {_patches(files)}{_suspicions(log)}",
            "check the pair (draft made for this body: hidden size, vocabulary, layer types, whole weights), "
            "and whether this image needs the patch",
        )
    share = foreign_share(measured, ours)
    if wanted.foreign_traffic == "fail" and (finding := foreign(measured, ours, share)):
        return finding
    if measured.drafts < wanted.minimum_drafts:
        return Finding(
            "too_few_drafts",
            f"{measured.drafts} drafts are too few to judge",
            f"at least {wanted.minimum_drafts} drafts within {wanted.measure_timeout:g} s",
            f"{measured.drafts} drafts in {sample}",
            "raise measure_timeout, or find out why the server is this slow",
        )
    if measured.acceptance_rate < wanted.acceptance_floor:
        return _below(wanted, measured, sample, files, log)
    return None


def dead_positions(measured: Delta) -> str | None:
    """A warning about the first position where a draft that was right until then is hardly ever right; None without one.

    Position 0 does not show this: a draft that is asked for more tokens than it was made for is right at the beginning. The
    mean length shows what it is worth.
    """
    for position in range(1, len(measured.per_position)):
        so_far = measured.per_position[position - 1]
        if so_far < REACHED:
            return None
        share = measured.per_position[position] / so_far
        if share + UNDECIDED * math.sqrt(max(0.0, share * (1 - share)) / so_far) < ALIVE:
            return (
                f"draft position {position} was right in {share:.0%} of the {so_far} drafts that were right until then "
                f"(by position {_percent(measured.rates)}; {measured.mean_acceptance_length:.2f} tokens a step): "
                f"set num_speculative_tokens to {position}, or see whether this draft was made for more"
            )
    return None


def silent_tcp(state: State, seen: Transport) -> str | None:
    """A warning if the ranks of a unit have RDMA and do not use it, or if nobody can tell; None if all is well.

    NCCL falls back to TCP without an error: it passes over a device that it does not know or cannot open.
    """
    if "--nnodes" not in state.argv or not state.rdma or set(seen.networks) == {"IB"}:
        return None
    said = ", ".join(f"NET/{name}" if name != "gloo" else name for name in seen.networks)
    return (
        f"{'the ranks do not talk over RDMA' if seen.networks else 'nothing tells whether the ranks talk over RDMA'}: "
        f"expected NET/IB alone in the log, over {state.rdma}; seen {said or 'no line of NCCL about a network'}"
        f"{f' (NCCL {seen.nccl})' if seen.nccl else ''}; "
        + (
            "do: compare NCCL_IB_HCA with ls /sys/class/infiniband, see that the container has /dev/infiniband, IPC_LOCK and memlock, "
            "and run playbooks/fabric.yml"
            if seen.networks
            else "do: start it with NCCL_DEBUG: INFO in serve.environment of the recipe"
        )
    )


def no_drafts(wanted: Wanted, ours: Traffic, log: Speculation) -> Finding:
    return Finding(
        "no_drafts",
        f"not one draft was made in {ours.tokens} tokens",
        f"at least {wanted.minimum_drafts} drafts; the series are there, so speculation is configured",
        f"0 drafts in {_sample(ours)}{_suspicions(log)}",
        "read the log for why drafting is off; a sampling default or a batch limit can disable it",
    )


def too_slow(wanted: Wanted, done: str) -> Finding:
    return Finding(
        "measurement_timeout",
        f"the measurement takes longer than {wanted.measure_timeout:g} s",
        f"all that was planned within {wanted.measure_timeout:g} s",
        f"only {done} by then",
        "raise measure_timeout, or plan less: fewer repeats, fewer kinds, fewer tokens",
    )


def _sample(ours: Traffic) -> str:
    return f"{ours.requests} chat prompts, {ours.tokens} tokens"


def _below(
    wanted: Wanted, measured: Delta, sample: str, files: Sequence[CheckedFile], log: Speculation
) -> Finding:
    rate, error = measured.acceptance_rate, measured.standard_error
    close = is_undecided(measured, wanted.acceptance_floor)
    return Finding(
        "acceptance_below_floor",
        f"acceptance {rate:.1%} is below the floor of {wanted.acceptance_floor:.1%}"
        + (", by less than chance explains" if close else ""),
        _at_least(wanted),
        f"{measured.per_position[0]} of {measured.drafts} drafts, {rate:.1%} ± {error:.1%} (standard error), "
        f"by position {_percent(measured.rates)}, in {sample}; {_patches(files)}{_suspicions(log)}",
        (
            "raise minimum_drafts for a sharper measurement, or lower the floor if this rate is good enough"
            if close
            else "see that the draft belongs to this body and revision; if this rate is right for it, set the floor to it"
        ),
    )


def is_undecided(measured: Delta, floor: float) -> bool:
    """Whether the rate is closer to the floor than :data:`UNDECIDED` standard errors."""
    return abs(measured.acceptance_rate - floor) < UNDECIDED * measured.standard_error


def enough(wanted: Wanted, measured: Delta) -> bool:
    """Whether the drafts made so far suffice to judge, one way or the other."""
    if measured.drafts < wanted.minimum_drafts:
        return False
    if not is_undecided(measured, wanted.acceptance_floor):
        return True
    return measured.drafts >= EXTEND * wanted.minimum_drafts


def _at_least(wanted: Wanted) -> str:
    return (
        f"{wanted.acceptance_floor:.1%} of at least {wanted.minimum_drafts} drafts accepted at position 0 "
        f"({_form(wanted.speculation or {})})"
    )


def _percent(rates: Sequence[float]) -> str:
    return " / ".join(f"{rate:.1%}" for rate in rates)


def _patches(files: Sequence[CheckedFile]) -> str:
    if not files:
        return "no patched file was to be checked"
    return ", ".join(f"{posixpath.basename(file.wanted.path)} is the locked one" for file in files)


def _suspicions(log: Speculation) -> str:
    parts = []
    if log.architectures and len(log.architectures) < 2:
        parts.append(f"the log resolves only {log.architectures[0]}, no architecture of a draft")
    elif len(log.architectures) > 1:
        parts.append(f"draft architecture {log.architectures[-1]}")
    parts += [f'the log says "{warning}"' for warning in log.warnings]
    return "".join(f"; {part}" for part in parts)
