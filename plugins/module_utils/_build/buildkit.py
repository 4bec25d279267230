# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A build: its source, its command, and its log. Pure.

The log is BuildKit's plain one: `#12 [stage 5/9] RUN …` begins a step, `#12 1.234 …` is what the step prints, and `#12 DONE`,
`#12 CACHED` or `#12 ERROR` ends it. ninja compiles vLLM's kernels, and prints its count as `[45/310]`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

LABEL = "sparkfleet.build"
"""Label of an image that was built: the fingerprint of what it was built from."""
REVISION = "org.opencontainers.image.revision"
PASSING = SOURCE, STAGING = "source", "registry"
LOG = "build.log"
"""What the directory of a build holds. Only the log outlives it."""
TAIL = 25
"""Lines of the log that a failure shows."""
COMMAND = 70
"""Characters of a step's command that a progress line shows."""

_STEP = re.compile(r"#(\d+) \[(?!internal\b|auth\b)([^\]]+)\] (.*)")
_SAYS = re.compile(r"#(\d+) \d+\.\d+ (.*)")
_COUNT = re.compile(r"\[\s*(\d+)/(\d+)\]")
_END = re.compile(r"#(\d+) (DONE|CACHED|ERROR|CANCELED)\b")


@dataclass(frozen=True)
class Source:
    """What a recipe says of a build (its key `image.build`)."""

    repository: str
    commit: str
    dockerfile: str = "Dockerfile"
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The same for two sources that are equal in every field."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def describe(self, reference: str) -> list[str]:
        """What would be built, for a person."""
        return [
            f"{reference} from {self.repository} at {self.commit}",
            f"{self.dockerfile}, {f'stage {self.target}' if self.target else 'its last stage'}",
            *(f"{name}: {value}" for name, value in self.arguments.items()),
        ]


def passing_name(directory: str) -> str:
    """The name of an image in the engine until it is pushed. All builds in one directory have the same.

    `docker build --iidfile` does not always write an ID: where images are in containerd, buildx before
    https://github.com/docker/buildx/pull/3952 wrote a digest that the engine does not know.
    """
    return f"sparkfleet-build:{hashlib.sha256(directory.encode()).hexdigest()[:12]}"


def command(
    docker: str, source: Source, host_arguments: Mapping[str, str], context: str, name: str
) -> list[str]:
    """The command line of the engine's own client. Every release has BuildKit, as a plugin (buildx) or built in.

    :param host_arguments: build arguments of this host, besides the source's; they do not change what the image is
    :param context: directory of the source
    :param name: of the image in the engine
    """
    return [
        docker,
        "build",
        "--progress=plain",
        f"--tag={name}",
        f"--file={context}/{source.dockerfile}",
        *([f"--target={source.target}"] if source.target else []),
        f"--label={LABEL}={source.fingerprint}",
        f"--label={REVISION}={source.commit}",
        *(f"--build-arg={name}={value}" for name, value in {**host_arguments, **source.arguments}.items()),
        context,
    ]


class Log:
    """Reads the log of a build. Gives one line of progress, and the end of the log for a failure."""

    def __init__(self) -> None:
        self._steps: dict[str, str] = {}
        self._count = ""
        self._tail: deque[str] = deque(maxlen=TAIL)

    def feed(self, line: str) -> None:
        line = line.rstrip()
        if line:
            self._tail.append(line)
        if end := _END.match(line):
            self._steps.pop(end[1], None)
        elif step := _STEP.match(line):
            # The step that printed last is the newest, also when it continues after another one.
            self._steps.pop(step[1], None)
            self._steps[step[1]] = f"{step[2]}: {step[3][:COMMAND]}"
            self._count = ""
        elif (says := _SAYS.match(line)) and (count := _COUNT.search(says[2])):
            self._count = f", {count[1]} of {count[2]}"

    def line(self, seconds: float) -> str:
        """`build: csrc-build 5/9: RUN …, 45 of 310, 12 min`; empty until there is a step."""
        if not self._steps:
            return ""
        return f"build: {list(self._steps.values())[-1]}{self._count}, {seconds / 60:.0f} min"

    def tail(self) -> str:
        return "\n".join(self._tail)


def refusal(code: int, log: Log, path: str) -> str:
    """The message about a failed build: what was expected, the end of the log, what to do."""
    tail = log.tail()
    lower = tail.lower()
    do = next(
        (do for words, do in REFUSALS if any(word in lower for word in words)), "read the log and run again"
    )
    return f"expected the build to end well, seen exit status {code}; do: {do}. The whole log: {path}. Its end:\n{tail}"


REFUSALS = (
    (
        ("no space left on device",),
        "make room where Docker keeps its images (docker system df, docker builder prune) and run again",
    ),
    (
        ("killed", "out of memory", "cannot allocate memory", "exit code: 137"),
        "the memory was not enough: stop what serves there (playbook stop), or compile less at a time "
        "(image_build_host_arguments), and run again",
    ),
    (
        ("buildx component is missing", "unknown flag: --progress"),
        "install the engine's build plugin (package docker-buildx-plugin, or docker-buildx) and run again",
    ),
    (
        ("toomanyrequests", "rate limit"),
        "Docker Hub limits pulls by address: wait, or log the engine of the host in (docker login), and run again",
    ),
    (
        ("could not resolve", "temporary failure in name resolution", "connection refused", "i/o timeout", "no such host"),
        "see that the host reaches the addresses that the log names, and run again: steps that are done are not repeated",
    ),
    (
        ("failed to read dockerfile", "dockerfile: no such file", "target stage", "not found"),
        "hold image.build of the recipe (dockerfile, target, arguments) against the source at its commit",
    ),
)  # fmt: skip
