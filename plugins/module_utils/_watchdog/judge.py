# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a look means, beside the one before it: findings, and what to do. Pure.

Only what surely makes no tokens is acted on: a wedged engine, a canary that fails three times, a server that answers nothing. All else
is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .._serve.watched import (
    ACCEPTANCE,
    BAD,
    CANARY,
    DOWN,
    GPU,
    HELD,
    MEMORY,
    RESTARTS,
    SILENT,
    STARTING,
    STOPPED,
    SWAP,
    UNIT,
    UNKNOWN,
    WEDGED,
    WELL,
)
from .._unit import words
from .._vllm.metrics import Counters, delta, was_reset
from .memory import Memory, forget_boot, forget_life
from .seen import Look
from .settings import ACT, Settings

ACTED_ON, TOLD = "act", "tell"
RESTART, STOP = "restart", "stop"
"""What is done."""
IN_A_ROW = 3
"""Looks in a row that must fail alike, for a canary and for a server that does not answer."""
STRANGE_GPU = 2
SILENT_GPU = 600.0
"""Seconds before nvidia-smi is asked again after it hung: each such process stays."""
BUSY = 90.0
"""Percent of utilization"""
GIB, MIB = 1 << 30, 1 << 20
_HOUR = 3600.0
_UNKEPT = 100
"""Starts that are remembered."""


@dataclass(frozen=True)
class Finding:
    kind: str
    severity: str
    expected: str
    seen: str
    do: str


@dataclass(frozen=True)
class Judgement:
    verdict: str
    reason: str
    memory: Memory
    findings: tuple[Finding, ...] = ()
    speculation: dict[str, Any] | None = field(default=None)

    @property
    def worst(self) -> Finding | None:
        """The finding that is acted on."""
        return next((each for each in self.findings if each.severity == ACTED_ON), None)


def action(judgement: Judgement, look: Look, settings: Settings) -> str:
    """RESTART, STOP, or empty for nothing."""
    if settings.mode != ACT or look.run or judgement.verdict in (UNKNOWN, STARTING):
        return ""
    if judgement.verdict == DOWN:
        return STOP if look.container and look.container.running else ""
    if judgement.worst is None or not look.unit.get("there"):
        return ""
    return STOP if len(judgement.memory.recent(look.now)) >= settings.restarts else RESTART


def acted(memory: Memory, look: Look, done: str) -> Memory:
    """The memory after a restart or stop that was ordered."""
    life = look.container.life if look.container else ""
    if done == STOP:
        return replace(forget_life(memory, "", look.now), down=life)
    own = {"unix": look.now.unix, "steady": look.now.steady, "boot": look.now.boot}
    return replace(forget_life(memory, "", look.now), restarts=(*memory.recent(look.now), own))


def canary_due(memory: Memory, look: Look, settings: Settings) -> bool:
    """Whether to ask for a completion: only of a server that did nothing since the last look. Where others ask, their answers tell,
    and a measurement is not disturbed. After one that failed, only tokens that were made since say that the next is not needed."""
    counters = look.counters
    if look.run or counters is None or not _same_life(memory, look) or counters.running:
        return False
    if memory.canary_failed:
        return not _made(memory, counters)
    if memory.running or memory.progress != progress(counters) or memory.start != counters.process_start:
        return False
    return memory.canary_at is None or look.now.steady - memory.canary_at >= settings.canary_interval


def progress(counters: Counters) -> tuple[int | None, ...]:
    return (counters.generated, counters.iterations, counters.prompt, counters.finished)


def _made(memory: Memory, counters: Counters) -> bool:
    """Whether tokens were made since the last look."""
    before = memory.progress[0] if memory.progress else None
    return before is not None and (counters.generated or 0) > before


def _same_life(memory: Memory, look: Look) -> bool:
    return (
        look.container is not None
        and memory.life == look.life
        and memory.boot == look.now.boot
        and memory.steady <= look.now.steady
    )


def judge(memory: Memory, look: Look, settings: Settings) -> Judgement:
    """The verdict of this look, with what to remember for the next one."""
    if memory.boot != look.now.boot or memory.steady > look.now.steady:
        memory = forget_boot(memory, look.now)
    host, memory = _host(memory, look, settings)
    gpu_asked = look.now.steady + SILENT_GPU if look.gpu.silent else memory.ask_gpu_from
    memory = replace(memory, steady=look.now.steady, ask_gpu_from=gpu_asked)
    if look.record is None:
        memory = forget_life(memory, "", look.now)
        return _finished(look, STOPPED, "no server is on record here", memory, host)
    container = look.container
    life = container.life if container else ""
    if memory.down is not None:
        if not memory.down and life:  # a lost memory: take what is there for what was stopped
            memory = replace(memory, down=life)
        if container is None or not container.running or life == memory.down:
            if look.run:
                return _held(memory, look, host)
            reason = "restarted too often, and stopped; somebody has to look, and start it"
            return _finished(look, DOWN, reason, memory, host)
        memory = replace(memory, down=None, restarts=())
    if container is None or not container.running:
        return _not_running(memory, look, host)
    if memory.life != look.life:
        memory = forget_life(memory, look.life, look.now)
    if look.run:
        answered = memory.answered or look.counters is not None
        return _held(replace(forget_life(memory, look.life, look.now), answered=answered), look, host)
    if look.unit.get("active") == "deactivating":
        reason = "systemd stops it"
        return _finished(look, STOPPED, reason, forget_life(memory, look.life, look.now), host)
    if look.member is not None and (judged := _member(memory, look, look.member, host)):
        return judged
    if look.counters is None:
        return _silent(memory, look, settings, host)
    return _answering(memory, look, look.counters, settings, host)


def _held(memory: Memory, look: Look, findings: list[Finding]) -> Judgement:
    return _finished(look, HELD, f"only looked: {look.run} is at work here", memory, findings)


def _finished(
    look: Look, verdict: str, reason: str, memory: Memory, findings: list[Finding], record: Any = None
) -> Judgement:
    since = {each.kind: memory.since.get(each.kind, look.now.unix) for each in findings}
    return Judgement(verdict, reason, replace(memory, since=since), tuple(findings), record)


# -- a server that does not run, or does not answer


def _not_running(memory: Memory, look: Look, findings: list[Finding]) -> Judgement:
    status = look.container.status if look.container else "absent"
    memory = forget_life(memory, "", look.now)
    if look.run:
        return _held(memory, look, findings)
    if look.unit.get("gave_up"):
        unit = f"{look.record.container if look.record else ''}.service"
        gave_up = Finding(
            RESTARTS,
            TOLD,
            f"{unit} starts the server again after an end",
            "it gave up after too many ends within an hour",
            f"read journalctl -u {unit}; then systemctl reset-failed {unit} and systemctl start {unit}",
        )
        others = [each for each in findings if each.kind != RESTARTS]
        return _finished(look, BAD, gave_up.seen, memory, [*others, gave_up])
    if look.unit.get("active") in ("active", "activating", "reloading"):
        return _finished(look, STARTING, f"the container is {status}; systemd starts it", memory, findings)
    return _finished(look, STOPPED, f"the container is {status}, and nobody starts it", memory, findings)


def _silent(memory: Memory, look: Look, settings: Settings, findings: list[Finding]) -> Judgement:
    watched = look.now.steady - memory.watched_since
    if not memory.answered and watched < settings.ready_timeout:
        reason = f"has not answered yet, for {watched:.0f} s of at most {settings.ready_timeout} s"
        return _finished(look, STARTING, reason, memory, findings)
    memory = replace(memory, unanswered=memory.unanswered + 1)
    if memory.unanswered < IN_A_ROW:
        reason = f"did not answer: {look.silent} (look {memory.unanswered} of {IN_A_ROW})"
        return _finished(look, UNKNOWN, reason, memory, findings)
    # What answers is not mended by a restart, and another vLLM may word it otherwise.
    severity = TOLD if look.answers else ACTED_ON
    do = (
        "see what /metrics answers; until it is vLLM's, nothing is judged"
        if look.answers
        else _do(look, settings)
    )
    seen = f"none in {memory.unanswered} looks: {look.silent}"
    found = Finding(SILENT, severity, "counters of vLLM in /metrics", seen, do)
    return _finished(look, BAD, f"{SILENT}: {found.seen}", memory, [found, *findings])


# -- a member of a unit


def _member(
    memory: Memory, look: Look, member: Mapping[str, Any], findings: list[Finding]
) -> Judgement | None:
    """The verdict on a worker, and on a head whose server is not up. A restart here mends nothing: the supervisors start the unit again,
    and have a bound of their own. None for a head whose server is: what that answers counts.
    """
    phase, head = member["phase"], not (look.record and look.record.rank)
    if phase == words.DOWN:
        do = "see the log of each member's container, then run site.yml"
        seen = f"down after {member['restarts']} ends within an hour: {member['why']}"
        down = Finding(UNIT, TOLD, "a unit that serves", seen, do)
        return _finished(look, BAD, f"{UNIT}: {seen}", memory, [down, *findings])
    if phase in (words.WAITING, words.ENDING) or (phase == words.STARTING and not head):
        why = f"; it ended: {member['why']}" if member["why"] else ""
        return _finished(look, STARTING, f"{phase}, for all members of the unit{why}", memory, findings)
    if head:
        return None
    if phase == words.RUNNING:
        reason = f"runs as rank {member['rank']} of {member['unit']}"
        return _finished(look, WELL, reason, replace(memory, unanswered=0), findings)
    memory = replace(memory, unanswered=memory.unanswered + 1)
    seen = f"{member['problem']} (look {memory.unanswered})"
    if memory.unanswered < IN_A_ROW:
        return _finished(look, UNKNOWN, seen, memory, findings)
    do = "see docker logs of the container; site.yml starts the unit again"
    silent = Finding(UNIT, TOLD, "a supervisor that says how its server is", seen, do)
    return _finished(look, BAD, f"{UNIT}: {seen}", memory, [silent, *findings])


# -- a server that answers


def _answering(
    memory: Memory, look: Look, counters: Counters, settings: Settings, findings: list[Finding]
) -> Judgement:
    found: list[Finding] = []
    memory = replace(memory, answered=True, unanswered=0)
    made = _made(memory, counters)
    memory, worked = _worked(memory, look, counters)
    stalled = look.now.steady - memory.moved_at
    if stalled >= settings.stall:
        found.append(_wedged(look, counters, stalled, settings))
    memory, failing = _canary(memory, look, made, settings)
    memory, falling, speculation = _acceptance(memory, look, counters)
    memory, gpu = _gpu(memory, look, counters, settings)
    found += [*failing, *falling, *gpu, *findings]
    first = found[0] if found else None
    reason = f"{first.kind}: {first.seen}" if first else "makes tokens" if worked else "idle, and answers"
    return _finished(look, BAD if found else WELL, reason, memory, found, speculation)


def _worked(memory: Memory, look: Look, counters: Counters) -> tuple[Memory, bool]:
    """Whether the engine did anything since the last look."""
    there = progress(counters)
    moved = memory.progress != there or memory.start != counters.process_start
    running = counters.running or 0
    if moved or not running or not memory.running:
        memory = replace(memory, moved_at=look.now.steady)
    known = memory.progress is not None
    return replace(memory, progress=there, start=counters.process_start, running=running), moved and known


def _wedged(look: Look, counters: Counters, stalled: float, settings: Settings) -> Finding:
    watts = "" if look.gpu.watts is None else f", GPU at {look.gpu.watts:.0f} W"
    return Finding(
        WEDGED,
        ACTED_ON,
        f"a token or a step of the engine within {settings.stall} s while requests run",
        f"{counters.running} running, {counters.waiting or 0} waiting, no step for {stalled:.0f} s{watts}",
        _do(look, settings),
    )


def _do(look: Look, settings: Settings) -> str:
    if not look.unit.get("there"):
        return "restart it by hand: its container has no unit, so the watchdog cannot"
    if settings.mode == ACT:
        return "nothing: the watchdog restarts it, and keeps the evidence"
    unit = f"{look.record.container if look.record else ''}.service"
    return f"keep what the evidence folder has, then systemctl restart {unit}"


def _canary(memory: Memory, look: Look, made: bool, settings: Settings) -> tuple[Memory, list[Finding]]:
    canary = look.canary
    if canary is not None:
        failed = memory.canary_failed + 1 if canary.problem and not canary.refused else 0
        memory = replace(
            memory,
            canary_at=look.now.steady,
            canary_failed=failed,
            canary_problem=canary.problem,
            canary_refused=canary.refused,
            # Its own tokens are no work of others.
            progress=None if not canary.problem else memory.progress,
        )
    elif made:
        memory = replace(memory, canary_failed=0, canary_problem="", canary_refused=False)
    if memory.canary_failed >= IN_A_ROW:
        seen = f"{memory.canary_failed} failed in a row: {memory.canary_problem}"
        found = Finding(CANARY, ACTED_ON, "a completion of an idle server", seen, _do(look, settings))
        return memory, [found]
    if memory.canary_refused:
        do = "see that the key and the name of the model are those of the record; run site.yml"
        found = Finding(CANARY, TOLD, "a completion of an idle server", memory.canary_problem, do)
        return memory, [found]
    return memory, []


def _acceptance(
    memory: Memory, look: Look, counters: Counters
) -> tuple[Memory, list[Finding], dict[str, Any] | None]:
    record = look.record
    if record is None or not record.speculates or counters.drafts is None:
        return replace(memory, window=None, judged=None), [], None
    begin: dict[str, Any] = {
        "start": counters.process_start,
        "drafts": counters.drafts,
        "first": counters.per_position.get(0, 0),
    }
    before = _counters(memory.window) if memory.window else None
    drafts = 0
    if before is None or was_reset(before, _counters(begin)):
        memory = replace(memory, window=begin)
    else:
        gained = delta(before, counters)
        drafts = gained.drafts
        if drafts >= max(record.minimum_drafts, 1):
            done = {"drafts": drafts, "rate": gained.acceptance_rate}
            memory = replace(memory, window=begin, judged=done)
    last = memory.judged
    judged: dict[str, Any] = dict(last) if last else {"drafts": drafts, "rate": None}
    told = {"drafts": judged["drafts"], "acceptance_rate": judged["rate"], "floor": record.floor}
    if judged["rate"] is None or judged["rate"] >= record.floor:
        return memory, [], told
    fallen = Finding(
        ACCEPTANCE,
        TOLD,
        f"acceptance of at least {record.floor:.2f}",
        f"{judged['rate']:.3f} over {judged['drafts']} drafts",
        "run verify.yml, which says why; a restart does not mend a draft",
    )
    return memory, [fallen], told


def _counters(window: Any) -> Counters:
    return Counters(drafts=window["drafts"], per_position={0: window["first"]}, process_start=window["start"])


def _gpu(memory: Memory, look: Look, counters: Counters, settings: Settings) -> tuple[Memory, list[Finding]]:
    gpu, found = look.gpu, []
    busy = gpu.utilization is not None and gpu.utilization >= BUSY and bool(counters.running)
    slack = memory.slack + 1 if busy and gpu.watts is not None and gpu.watts < settings.idle_watts else 0
    slowed = memory.slowed + 1 if gpu.slowed else 0
    if slack >= STRANGE_GPU:
        found.append(
            Finding(
                GPU,
                TOLD,
                f"at least {settings.idle_watts:g} W of a busy GPU",
                f"{gpu.watts:.1f} W at {gpu.utilization:.0f} % utilization",
                "watch whether tokens come; if they do not, power the Spark off and on",
            )
        )
    elif slowed >= STRANGE_GPU:
        clock = "" if gpu.clock is None else f" at {gpu.clock:.0f} MHz"
        found.append(
            Finding(
                GPU,
                TOLD,
                "clocks that nothing lowers",
                f"lowered by {' and '.join(gpu.slowed)}{clock}",
                "see to air around the Spark, and to its power supply",
            )
        )
    return replace(memory, slack=slack, slowed=slowed), found


# -- the host


def _host(memory: Memory, look: Look, settings: Settings) -> tuple[list[Finding], Memory]:
    found: list[Finding] = []
    if look.available is not None and look.available < settings.memory_floor * GIB:
        found.append(
            Finding(
                MEMORY,
                TOLD,
                f"at least {settings.memory_floor:g} GiB of available memory",
                f"{look.available / GIB:.1f} GiB",
                "end what else runs here, or lower gpu-memory-utilization: without memory a Spark freezes",
            )
        )
    memory, swap = _swap(memory, look, settings)
    memory, ends = _ends(memory, look)
    return [*found, *swap, *ends], memory


def _swap(memory: Memory, look: Look, settings: Settings) -> tuple[Memory, list[Finding]]:
    before, after = memory.swapped_in, look.swapped_in
    seconds = look.now.steady - memory.steady
    memory = replace(memory, swapped_in=after)
    if before is None or after is None or seconds <= 0 or after < before:
        return memory, []
    rate = (after - before) / seconds / MIB
    if rate <= settings.swap_in:
        return memory, []
    found = Finding(
        SWAP,
        TOLD,
        f"at most {settings.swap_in:g} MiB a second read from swap",
        f"{rate:.0f} MiB a second",
        "end what else runs here, or lower gpu-memory-utilization",
    )
    return memory, [found]


def _ends(memory: Memory, look: Look) -> tuple[Memory, list[Finding]]:
    """Starts after an end that nobody asked for. Those of a run and of the watchdog are none."""
    ends = int(look.unit.get("restarts") or 0) + (look.container.restarts if look.container else 0)
    now = look.now.steady
    ended = tuple(at for at in memory.ended if 0 <= now - at < _HOUR)
    own = any(each["boot"] == look.now.boot and each["steady"] >= memory.steady for each in memory.restarts)
    known = memory.steady > 0
    if known and ends > memory.ends and not look.run and not own:
        ended = (*ended, *(now for _each in range(min(ends - memory.ends, _UNKEPT))))[-_UNKEPT:]
    memory = replace(memory, ends=ends, ended=ended)
    if not ended:
        return memory, []
    name = look.record.container if look.record else "the container"
    found = Finding(
        RESTARTS,
        TOLD,
        "a server that does not end by itself",
        f"started again {len(ended)} times within an hour",
        f"read what it died of: journalctl -u {name}.service, docker logs {name}",
    )
    return memory, [found]
