# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vLLM's own verdict on serve arguments, before anything is stopped: what runs in the image, and what its answer means.

The probe really starts C(vllm serve), and leaves it where its configuration is made. By then vLLM has run its parser, its checks of
the arguments, the models' configs, their architectures and the pairing. It has made no engine yet, and so used no weight and no GPU
memory. Only the engine's worker looks how much memory is free (vLLM 0.20.2 and 0.32.0, read), so a server that holds the GPU at the
same time does not matter.

The probe needs two names of vLLM, and both stay in their place from 0.20 to 0.33: C(vllm.entrypoints.cli.main.main) and
C(vllm.engine.arg_utils.EngineArgs.create_engine_config).
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._common import json_text, shape
from . import log

MARK = "sparkfleet.vllm.probe "
"""Begins the line of the probe's answer, among the lines that vLLM logs."""
LONGEST_ANSWER = 256 * 1024
"""Bytes of that answer. The probe names at most 20 errors."""

# Runs inside the image: python3 -c PROBE '{"command": [...], "limit": seconds, "program": name or ""}'. Gives one answer and ends.
PROBE = r"""
import json, os, shutil, socket, subprocess, sys, threading, traceback
asked = json.loads(sys.argv[1])
sys.path = [entry for entry in sys.path if entry]  # vllm itself does not search its working directory
near = ("localhost", "127.0.0.1", "0.0.0.0", "::1", "::", socket.gethostname())
names, killed, version = [], [], None

def leave(state, **more):
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        import resource
        used = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    except ImportError:
        used = 0
    said = {"state": state, "version": version, "peak_kib": used, "names": names, "killed": killed}
    os.write(1, ("\nsparkfleet.vllm.probe " + json.dumps({**said, **more}) + "\n").encode())
    os._exit(0)

def chain(error):
    # pydantic keeps what it was raised from in its own list.
    links, pending = [], [error]
    while pending and len(links) < 20:
        error = pending.pop(0)
        links.append({"types": [kind.__name__ for kind in type(error).__mro__], "errno": getattr(error, "errno", None)})
        wrapped = [one.get("ctx", {}).get("error") for one in error.errors()] if callable(getattr(error, "errors", None)) else []
        pending += [one for one in (error.__cause__ or error.__context__, *wrapped) if isinstance(one, BaseException)]
    return links

class Held(BaseException):
    pass

def held(process):
    raise Held("vLLM starts other processes before its configuration is made")

# vLLM looks at the model's code in a process of its own, and takes its death for a fault of the model.
class Watched(subprocess.Popen):
    def _handle_exitstatus(self, *args, **kwargs):
        super()._handle_exitstatus(*args, **kwargs)
        if self.returncode and self.returncode < 0:
            killed.append(-self.returncode)

watch = threading.Timer(asked["limit"], leave, ("late",))
watch.daemon = True
watch.start()
if asked["program"] and shutil.which(asked["program"]) is None:
    leave("absent")
# Without a network a name cannot be looked up: whoever tries would have got further on the host.
sys.addaudithook(lambda event, args: event == "socket.getaddrinfo" and args[0] and str(args[0]) not in near and names.append(str(args[0])))
try:
    import importlib.metadata
    version = importlib.metadata.version("vllm")
    import vllm.entrypoints.cli.main as cli
    from vllm.engine.arg_utils import EngineArgs
    from multiprocessing.process import BaseProcess
    create, serve = EngineArgs.create_engine_config, cli.main
except BaseException as error:
    traceback.print_exc()
    leave("unknown", why=type(error).__name__ + ": " + str(error))

def created(*args, **kwargs):
    create(*args, **kwargs)
    leave("accepted")

EngineArgs.create_engine_config = created
subprocess.Popen = Watched
BaseProcess.start = held
sys.argv = ["vllm", "serve", *asked["command"]]
try:
    serve()
except Held as error:
    leave("unknown", why=str(error))
except SystemExit as error:
    leave("exit", code=error.code if isinstance(error.code, int) else 1)
except BaseException as error:
    traceback.print_exc()
    leave("raised", chain=chain(error))
leave("unknown", why="vLLM ended without a configuration")
"""

# Exit codes of Python's argparse when it refuses an argument, and of a killed process.
_USAGE, _KILLED = 2, 137
# What vLLM raises for values it does not accept. pydantic's ValidationError is a ValueError.
_REFUSALS = frozenset({"ValueError", "TypeError", "LookupError", "AssertionError", "NotImplementedError"})
# A file that is missing here is missing for the server too: it has the same mounts.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
_SILENT: Mapping[str, Any] = {"state": "silent"}
_ENTRYPOINT = ("vllm", "serve")
_STRANGE: Mapping[str, Any] = {"state": "unknown", "why": "its answer is of another shape"}
_SAID = {"state": str, "version": shape.Maybe(str), "peak_kib": int, "names": [str], "killed": [int]}
_NEEDS: Mapping[str, Any] = {
    "accepted": {},
    "absent": {},
    "late": {},
    "exit": {"code": int},
    "unknown": {"why": str},
    "raised": {"chain": [{"types": [str]}]},
}
"""What the probe answers, and what it adds in each state."""


@dataclass(frozen=True)
class Verdict:
    """What vLLM says of its arguments. Not asked: the probe could not find out, `reason` says why, and nothing is refused."""

    asked: bool
    accepted: bool
    reason: str = ""
    version: str | None = None
    peak_bytes: int | None = None
    absent: bool = False
    """Whether the image lacks the program that was named"""


def starts_vllm(entrypoint: Sequence[str] | None) -> bool:
    """Whether an image's entrypoint hands the command to C(vllm serve) as it is."""
    parts = [part.rpartition("/")[2] for part in entrypoint or ()]
    return tuple(parts[-2:]) == _ENTRYPOINT


def starting(entrypoint: Sequence[str]) -> list[str]:
    """The words of an entrypoint that start vLLM. In a unit they follow a C(--), after a program that is mounted and runs them."""
    words = list(entrypoint)
    return words[words.index("--") + 1 :] if "--" in words else words


def request(command: Sequence[str], limit: float, program: str = "") -> str:
    """The probe's argument.

    :param program: a name to look for in the image; empty for the image's own program, which it has
    """
    return json.dumps({"command": list(command), "limit": limit, "program": program})


def judge(lines: Sequence[str], exit_code: int | None, oom_killed: bool = False) -> Verdict:
    """The verdict by the log of a finished probe.

    Refused means: by vLLM's own code, for a reason that does not come from how the probe runs. Anything that the probe's
    isolation may cause (no network, few rights, little memory, a GPU that it does not see) is no refusal.

    :param lines: the container's log
    :param exit_code: of the container; None when it was stopped for lack of time
    """
    said = next((_parsed(line[len(MARK) :]) for line in reversed(lines) if line.startswith(MARK)), _SILENT)
    rest = [line for line in lines if not line.startswith(MARK)]
    seen: dict[str, Any] = {
        "version": said.get("version"),
        "peak_bytes": said["peak_kib"] * 1024 if said.get("peak_kib") else None,
    }
    death = log.death_reason(rest)
    if said["state"] == "accepted":
        return Verdict(True, True, **seen)
    if said["state"] == "absent":
        return Verdict(True, False, absent=True, **seen)
    if _refused(said):
        return Verdict(True, False, death or "its log names no reason", **seen)
    return Verdict(False, True, _unasked(said, death, exit_code, oom_killed), **seen)


def _parsed(text: str) -> Mapping[str, Any]:
    """The answer, if it came from the probe: any code of the image can print such a line."""
    try:
        said = json_text.read(text, "the probe's answer", limit=LONGEST_ANSWER)
    except json_text.JsonError:
        return _STRANGE
    if shape.wrong(said, _SAID) or said["state"] not in _NEEDS or shape.wrong(said, _NEEDS[said["state"]]):
        return _STRANGE
    links = said["chain"] if said["state"] == "raised" else None
    if said["peak_kib"] < 0 or links == [] or not all(map(_is_link, links or ())):
        return _STRANGE
    return dict(said)


def _is_link(link: Mapping[str, Any]) -> bool:
    # In some libraries the errno of an error is a text.
    return bool(link["types"]) and isinstance(link.get("errno"), (int, str, type(None)))


def _refused(said: Mapping[str, Any]) -> bool:
    if said["state"] == "exit":
        return bool(said["code"] == _USAGE)
    if said["state"] != "raised" or said["names"] or said["killed"]:
        return False
    links = said["chain"]
    if not links or any(_of_the_probe(link) for link in links):
        return False
    kinds = set(links[0]["types"])
    return bool(kinds & _REFUSALS) or "OSError" in kinds


def _of_the_probe(link: Mapping[str, Any]) -> bool:
    """Whether one error of a chain can come from how the probe runs."""
    kinds = set(link["types"])
    if kinds & {"MemoryError", "ImportError"}:
        return True
    return "OSError" in kinds and link.get("errno") is not None and link["errno"] not in _ABSENT


def _unasked(said: Mapping[str, Any], death: str | None, exit_code: int | None, oom_killed: bool) -> str:
    if oom_killed or exit_code == _KILLED or said.get("killed"):
        return "it was killed, most likely for want of memory: it may take more"
    if said["state"] == "late" or exit_code is None:
        return "it took too long to answer"
    if said["state"] == "unknown":
        return str(said["why"])
    if said.get("names"):
        return f"it wants to reach {said['names'][0]}, and is asked without a network: {death or 'no reason given'}"
    return death or f"it ended with exit code {exit_code}"


def refusal(image: str, verdict: Verdict) -> str:
    """The message about arguments that vLLM does not accept."""
    return (
        f"expected vLLM {verdict.version} in {image} to accept the serve arguments, seen: {verdict.reason}; correct them "
        "in the recipe or in vllm_serve_extra_arguments. Nothing was touched"
    )
