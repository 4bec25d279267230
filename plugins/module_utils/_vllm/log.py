# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads vLLM's own log for a person: what vLLM is doing, what it died of, and what became of the speculation.

The wording is that of vLLM 0.20 to 0.32, on GPU and CPU. Unknown lines are ignored, and nothing depends on a line being there.
Whatever runs in the container writes the lines, so each pattern takes time in proportion to the line: a repeated part is bounded, or
ends at a character that it does not hold.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# One prefix for each process that a line went through, as Ray's workers have it.
_PROCESS = re.compile(r"^(?:\([\w.-]{1,80} pid=\d{1,10}(?:, ip=[\w.:]{1,40})?\) ?){1,4}")
_HEADER = re.compile(
    r"^(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \[[^\]]+:\d+\] ?"
)
_LEVEL = re.compile(r"^(?:ERROR|CRITICAL) \d\d-\d\d")

# Lines that come even from a server that is stuck: answers to health checks, a clock, a wait.
_IDLE = re.compile(r'"(?:GET|HEAD|POST) \S+ HTTP/1\.\d" \d{3}|^Engine \d+: Avg|Waiting for \d+ local|^\s*$')

_PHASES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), say)
    for pattern, say in [
        (r"^non-default args: ", lambda m: "arguments accepted"),
        (r"^Resolved architecture: (\w+)", lambda m: f"configuration of {m[1]} read"),
        (r"Initializing a V\d LLM engine \(v([^)]{1,200})\)", lambda m: f"version {m[1]}, the engine starts"),
        (r"^Starting to load model ", lambda m: "loading the body"),
        (r"^Loading drafter model", lambda m: "loading the draft"),
        (r"shards:\s+\d+% Completed \| (\d+/\d+)", lambda m: f"loading weights {m[1]}"),
        (r"^Loading weights took (\d+(?:\.\d+)?) s", lambda m: f"weights loaded in {float(m[1]):.0f} s"),
        (r"^Model loading took (\d+(?:\.\d+)?) ?GiB", lambda m: f"model in memory: {float(m[1]):.1f} GiB"),
        (r"Directly load the compiled graph", lambda m: "compiled graphs taken from the cache"),
        (r"Dynamo bytecode transform|Compiling a graph|^Using cache directory", lambda m: "compiling"),
        (r"^torch\.compile takes? (\d+(?:\.\d+)?) s", lambda m: f"compiled in {float(m[1]):.0f} s"),
        (r"KV cache size: ([\d,]+) tokens", lambda m: f"KV cache holds {m[1]} tokens"),
        (r"Capturing CUDA graphs?[^%]{0,80}?\b(\d{1,3}%)", lambda m: f"capturing CUDA graphs {m[1]}"),
        (
            r"^init engine [^%]{0,80}? took (\d+(?:\.\d+)?) s",
            lambda m: f"engine warmed up in {float(m[1]):.0f} s",
        ),
        (r"^Starting vLLM (?:API )?server", lambda m: "API server starts"),
        (r"Application startup complete", lambda m: "API server started"),
    ]
)

# Root causes look like `package.module.SomeError: text`, alone on their line or behind the logger's header.
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b(?:: .*|:?)$")
# What refuses an argument names itself. Any other name is a compiler's, whose complaints have the same form.
_USAGE = re.compile(
    r"^(?:[\w.-]{0,40}vllm[\w.-]{0,40}(?: \w{1,40})?|[\w.-]+\.py|python\S* -m \S+): error: (.+)$"
)
_NOT_STARTED = re.compile(r"^exec \S+: ")
# Messages of the other processes when one of them has died: true, but not the reason.
_CONSEQUENCE = re.compile(
    r"EngineDeadError|Engine core initialization failed|EngineCore encountered an issue|Engine process failed"
    r"|WorkerProc initialization failed|See root cause above|See stack trace|CancelledError|BrokenPipeError"
    r"|KeyboardInterrupt|SystemExit|failed proc names"
)
# The engine's processes by name, and how they ended. Below 0 it was a signal, and then no process could say why.
_ENDED = re.compile(r"Failed core proc\(s\): \{([^}]{1,500})\}")
_BY_SIGNAL = re.compile(r"'([^']{1,80})': -(\d{1,2})\b")
# Last messages: what an exception of C++ says, else that of libc, of C++ or of the shell.
_CRASHES = (
    re.compile(r"^what\(\): +(\S.*)"),
    re.compile(
        r"^((?:Bus error|Segmentation fault|Illegal instruction|Floating point exception|Aborted|Killed"
        r"|terminate called|double free|corrupted |(?:malloc|realloc|free|munmap_chunk)\(\): ).*)"
    ),
)
# An exception that quotes another program below it, and the lines that count in the quote: the first that says what is wrong, else
# the first that says that something is. A compiler's command is none, though its options may be about errors.
_QUOTES = re.compile(r"(?:std(?:err|out)|(?i:output)|codegen error|[Ff]ailed with)\b[^:]{0,40}:?$|:$")
_QUOTED = (re.compile(r"\b(?:fatal|error) *:"), re.compile(r"(?<![-\w])(?:fatal|error|FAILED)\b"))
_QUOTED_LINES = 20
_UVICORN = re.compile(r"^(?:ERROR|CRITICAL): +(\S.*)$")
_REASON_WIDTH = 500
ASKED_TO_STOP = "it was asked to stop (SIGTERM)"
_ASKED_TO_STOP = re.compile(r"\[shutdown\] API server: shutdown triggered|received SIGTERM|^Shutting down$")


def message(line: str) -> str:
    """The text of a log line without colours, process and logger header."""
    return _HEADER.sub("", _PROCESS.sub("", _COLOUR.sub("", line.rstrip("\r\n"))))


def shows_progress(line: str) -> bool:
    """Whether a new line shows that the server got further, and not only that time went by."""
    text = message(line)
    return not _IDLE.search(text.removeprefix("INFO:").strip())


def phase(line: str) -> str | None:
    """What vLLM is doing, in words for a person; None for a line that does not tell."""
    text = message(line)
    for pattern, say in _PHASES:
        match = pattern.search(text)
        if match:
            return say(match)
    return None


def death_reason(lines: Sequence[str]) -> str | None:
    """The line that says why vLLM ended, with its continuation; None when the log holds no reason.

    That is the last exception that is not the echo of another process's death, or an argument error; else a crash; else the last
    line logged as an error.
    """
    texts = [message(line) for line in lines]
    return _exception(texts) or _crash(texts) or _stop(texts) or _last_error(lines, texts)


def _exception(texts: Sequence[str]) -> str | None:
    for index in range(len(texts) - 1, -1, -1):
        text = texts[index].strip()
        usage = _USAGE.match(text)
        if usage and not texts[index].startswith(" "):
            return usage[1]
        if _EXCEPTION.match(texts[index]) and not _CONSEQUENCE.search(text):
            return _with_continuation(texts, index)
        if _NOT_STARTED.match(text):
            return text
    return None


def _crash(texts: Sequence[str]) -> str | None:
    """The process that a signal ended, with its last message if there is one."""
    said = (says.match(text.strip()) for says in _CRASHES for text in reversed(texts))
    words = next((found[1][:_REASON_WIDTH] for found in said if found), None)
    ended = next((found[1] for text in reversed(texts) if (found := _ENDED.search(text))), "")
    by_signal = _BY_SIGNAL.search(ended)
    if not by_signal:
        return words
    number = int(by_signal[2])
    name = next((one.name for one in signal.Signals if one == number), "unknown")
    crash = f"{by_signal[1]} was ended by signal {number} ({name})"
    return f"{crash}: {words}" if words else crash


def _stop(texts: Sequence[str]) -> str | None:
    stops = (_ASKED_TO_STOP.search(text.strip().removeprefix("INFO:").strip()) for text in texts)
    return ASKED_TO_STOP if any(stops) else None


def _last_error(lines: Sequence[str], texts: Sequence[str]) -> str | None:
    for line, text in zip(reversed(lines), reversed(texts), strict=True):
        header = _PROCESS.sub("", _COLOUR.sub("", line))
        if uvicorn := _UVICORN.match(header):
            return uvicorn[1].strip()
        if _LEVEL.match(header) and text.strip() and not _CONSEQUENCE.search(text) and text[:1].isalpha():
            if text.startswith("Traceback"):
                continue
            return text.strip()
    return None


def _with_continuation(texts: Sequence[str], index: int) -> str:
    """The exception's line, with the text that explains it.

    pydantic says below it what is wrong, as pairs of a field and an indented text. A compiler's message stands below the
    exception of the code that called it.
    """
    parts = [texts[index].strip()]
    if ":" not in parts[0]:
        # A bare exception explains nothing. The statement that raised it does, above its row of carets.
        above = (text.strip() for text in reversed(texts[:index]))
        statement = next((text for text in above if text.strip("^~ ")), "")
        parts = [f"{parts[0]}: {statement}" if statement else parts[0]]
    if "ValidationError" in parts[0]:
        for text in texts[index + 1 : index + 5]:
            if "further information" in text:
                break
            parts.append(re.sub(r" \[type=\w+, input_value=.*", "", text.strip()))
    elif _QUOTES.search(parts[0]):
        below = [text.strip() for text in texts[index + 1 : index + 1 + _QUOTED_LINES]]
        parts += [f"({text})" for says in _QUOTED for text in below if says.search(text)][:1]
    reason = " ".join(parts)
    return reason if len(reason) <= _REASON_WIDTH else reason[:_REASON_WIDTH] + " …"


@dataclass(frozen=True)
class Speculation:
    """What the log says of speculation. None: the log does not say it (rotated, other version, not there)."""

    configured: bool | None = None
    method: str | None = None
    num_speculative_tokens: int | None = None
    architectures: tuple[str, ...] = ()
    """As vLLM resolved them: the body's, then the draft's (`Gemma4MTPModel` for a good one)."""
    warnings: tuple[str, ...] = ()
    """Lines that come with a draft which loads and never agrees."""


_CONFIG = re.compile(r"speculative_config=(None|SpeculativeConfig\(([^)]{0,2000})\))")
_METHOD = re.compile(r"method='([^']+)'")
_TOKENS = re.compile(r"num_spec(?:ulative)?_tokens=(\d+)")
_ARCHITECTURE = re.compile(r"Resolved architecture: (\w+)")
_SUSPECT = re.compile(r"method='draft_model'|Keeping separate embedding weights|No target layer of type")


def speculation(lines: Iterable[str]) -> Speculation:
    """Read what the log of a start says of speculation."""
    configured: bool | None = None
    method: str | None = None
    tokens: int | None = None
    architectures: list[str] = []
    warnings: list[str] = []
    for line in lines:
        config = _CONFIG.search(line)
        if config:
            configured = config[1] != "None"
            if configured:
                named, counted = _METHOD.search(config[2]), _TOKENS.search(config[2])
                method = named[1] if named else None
                tokens = int(counted[1]) if counted else None
        architecture = _ARCHITECTURE.search(line)
        if architecture and architecture[1] not in architectures:
            architectures.append(architecture[1])
        suspect = _SUSPECT.search(line)
        if suspect:
            text = "method='draft_model'" if config else message(line).strip()
            if text not in warnings:
                warnings.append(text)
    return Speculation(configured, method, tokens, tuple(architectures), tuple(warnings[:4]))


@dataclass(frozen=True)
class Transport:
    """How the ranks of one model talk to those on other hosts."""

    networks: tuple[str, ...] = ()
    """In NCCL's words: `IB` for RDMA, `Socket` for TCP, or a plugin's name. `gloo` where the ranks have no GPU. Empty: the log does
    not say it. NCCL says it with NCCL_DEBUG=INFO."""
    nccl: str | None = None
    """NCCL's version."""


# A channel names the network that it goes through, a communicator the one that it was given. The line of a network that was set up
# says less: another may have been chosen.
_NETWORK = re.compile(
    r"NCCL INFO [^\r\n]{0,200}?(?:via NET/|Using network |Assigned NET plugin )([A-Za-z]\w{0,31})"
)
_SET_UP = re.compile(r"NCCL INFO NET/([A-Za-z]\w{0,31}) : Using ")
_NCCL = re.compile(r"(?:vLLM is using nccl==|NCCL version )(\d[\w.]{0,20})")
_GLOO = re.compile(
    r"\bworld_size=(?!1 )\d{1,6} rank=\d{1,6} local_rank=\d{1,6} distributed_init_method=\S{1,200} backend=gloo\b"
)
_MOST_NETWORKS = 8


def transport(lines: Iterable[str]) -> Transport:
    """Read what the log of a start says of the network between the ranks."""
    used: dict[str, None] = {}
    ready: dict[str, None] = {}
    nccl = None
    for line in lines:
        if network := _NETWORK.search(line):
            used[network[1]] = None
        elif set_up := _SET_UP.search(line):
            ready[set_up[1]] = None
        elif _GLOO.search(line):
            used["gloo"] = None
        if version := _NCCL.search(line):
            nccl = version[1]
    return Transport(tuple(used or ready)[:_MOST_NETWORKS], nccl)


def tail(lines: Sequence[str], reason: str | None = None, count: int = 10, width: int = 300) -> list[str]:
    """The last lines worth showing. If there is a reason of a death, they end at the line that holds it.

    No blanks, no health checks, none longer than a few lines of a terminal.
    """
    if reason:
        # A reason may be cut off, or have its exception's name from another line. One joined from several lines is in none: keep all.
        needle = (reason.partition(": ")[2] or reason)[:60]
        end = max((index for index, line in enumerate(lines) if needle in line), default=len(lines))
        lines = lines[: end + 1]
    kept = [line.rstrip() for line in lines if shows_progress(line)]
    return [line if len(line) <= width else line[:width] + " …" for line in kept[-count:]]
