# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: holds one life of one vLLM container against what is wanted.

What can be known early is asked early: files and exits before waiting, the model's name and the set-up of
speculation before a measurement. Judging is in module_utils/_gate/diagnosis.py; this is the order of asking.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from .._vllm import client, metrics
from .._vllm.prompts import KINDS, prompt
from . import diagnosis
from .diagnosis import CheckedFile, Traffic
from .observed import Life


@dataclass
class Gate(Life):
    """One run, to a verdict."""

    def run(self) -> None:
        """Observe and judge. Returns when the server passes.

        :raises Failed: it does not, with the finding
        """
        state = self._bind()
        self._check_files()
        if not diagnosis.running(state):
            self._ended(state)
        for file in self._files:
            self.say(f"in the container: {file.wanted.path}, the locked one")
        before = self._come_up()
        if self.wanted.speculation is not None:
            self._measure(before)
        self._still_there()
        # A file can be replaced while all this went on; it costs nothing to look again.
        self._check_files()
        self.result |= {"verdict": "pass", "diagnosis": "ok", "passed_at": self.now()}

    # -- files

    def _check_files(self) -> None:
        files = []
        for wanted in self.wanted.files:
            seen = self.container.file(self._bound, wanted.path)
            host = self.container.host_file(wanted.host_path) if wanted.host_path else None
            files.append(CheckedFile(wanted, seen, host, self._bound.mounts.get(wanted.path)))
        self._files = files
        self.result["files"] = [_file_result(file) for file in files]
        self._stop_at(diagnosis.file_contents(files))
        self._stop_at(diagnosis.file_ages(files, self._bound))
        for file in files:
            if file.seen.changed is None:
                text = f"{file.wanted.path}: whether it changed after vLLM started is unknown; run as root to see"
                if text not in self.warnings:
                    self.warnings.append(text)

    # -- the measurement

    def _measure(self, before: metrics.Counters) -> None:
        wanted = self.wanted
        completions: list[client.Completion] = []
        started = self.clock()
        while True:
            number = len(completions)
            texts = [prompt(number + index) for index in range(len(KINDS))]
            completions += self._asked(
                partial(
                    self.server.stream_all, wanted.served_model, texts, wanted.max_tokens, wanted.concurrency
                ),
                lambda error: diagnosis.completion_failed(wanted, str(error)),
            )
            ours = Traffic(len(completions), sum(completion.completion_tokens for completion in completions))
            measured = metrics.delta(before, self._settled(before, ours.requests))
            speed = client.decode_tokens_per_second(completions)
            self._record(measured, ours, speed)
            self.say(
                f"{measured.drafts} drafts, {measured.acceptance_rate:.1%} accepted at position 0"
                + (f", {speed:.1f} tok/s" if speed else "")
            )
            if not measured.drafts or diagnosis.enough(wanted, measured):
                break
            if self.clock() - started > wanted.measure_timeout:
                break
        self._judge(measured, ours)

    def _record(self, measured: metrics.Delta, ours: Traffic, speed: float | None) -> None:
        self.result |= {
            "drafts": measured.drafts,
            "draft_tokens": measured.draft_tokens,
            "accepted": measured.accepted,
            "accepted_per_position": list(measured.per_position),
            "acceptance_rate": round(measured.acceptance_rate, 4),
            "rates": [round(rate, 4) for rate in measured.rates],
            "mean_acceptance_length": round(measured.mean_acceptance_length, 4),
            "standard_error": round(measured.standard_error, 4),
            "decode_tokens_per_second": None if speed is None else round(speed, 1),
            "prompts": ours.requests,
            "foreign_share": round(diagnosis.foreign_share(measured, ours), 4),
        }

    def _judge(self, measured: metrics.Delta, ours: Traffic) -> None:
        self._stop_at(diagnosis.speculation_works(self.wanted, measured, ours, self._files, self._evidence))
        other = diagnosis.foreign(measured, ours, diagnosis.foreign_share(measured, ours))
        if other is not None:
            self.warnings.append(
                f"{other.summary}: rates and counts are of all traffic, not of this check alone"
            )


def _file_result(file: CheckedFile) -> dict[str, Any]:
    return {
        "path": file.wanted.path,
        "md5": file.seen.md5,
        "sha256": file.seen.sha256,
        "locked_md5": file.wanted.md5,
        "locked_sha256": file.wanted.sha256,
        "host_path": file.wanted.host_path,
        "host_md5": file.host.md5 if file.host else None,
        "mounted_from": file.mounted_from,
        "error": file.seen.error,
        "ok": file.ok,
    }
