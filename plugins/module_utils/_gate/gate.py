# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: compares one life of one vLLM container with what is wanted.

Questions with early answers come first: files and exits before waiting, the model's name and the set-up of speculation
before a measurement. module_utils/_gate/diagnosis.py judges; this file keeps the order of the questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .._vllm import client, log, metrics
from .._vllm.prompts import KINDS, prompt
from . import diagnosis, rate
from .diagnosis import CheckedFile, Traffic
from .observed import Life, Observer, stop_at
from .rate import Rate


@dataclass
class Gate:
    """One run, to a verdict."""

    observer: Observer

    def run(self) -> None:
        """Observe and judge. Returns when the server passes.

        :raises Failed: the server does not pass; holds the finding
        """
        observer = self.observer
        life = observer.bind()
        stop_at(diagnosis.image(observer.wanted, life.state))
        files = self._check_files(life)
        if not diagnosis.running(life.state):
            life.ended(life.state)
        for file in files:
            observer.say(f"in the container: {file.wanted.path}, the locked one")
        if not observer.wanted.headless:
            before, evidence = life.come_up()
            self._look_at_network(life)
            if observer.wanted.speculation is not None:
                self._measure(life, before, evidence, files)
        life.still_there()
        # A file can be replaced during all this, and another look costs nothing.
        self._check_files(life)
        observer.result |= {"verdict": "pass", "diagnosis": "ok", "passed_at": observer.now()}

    # -- files

    def _check_files(self, life: Life) -> Sequence[CheckedFile]:
        observer, files = self.observer, []
        for wanted in observer.wanted.files:
            seen = observer.container.file(life.state, wanted.path)
            host = observer.container.host_file(wanted.host_path) if wanted.host_path else None
            files.append(CheckedFile(wanted, seen, host, life.state.mounts.get(wanted.path)))
        observer.result["files"] = [_file_result(file) for file in files]
        stop_at(diagnosis.file_contents(files))
        stop_at(diagnosis.file_ages(files, life.state))
        for file in files:
            if file.seen.changed is None:
                text = f"{file.wanted.path}: whether it changed after vLLM started is unknown; run as root to see"
                if text not in observer.warnings:
                    observer.warnings.append(text)
        return files

    # -- the network of a unit

    def _look_at_network(self, life: Life) -> None:
        """Slow, and no reason to go back: a rollback would bring the same network."""
        if not life.state.rdma:
            return
        seen = life.network()
        self.observer.result["network"] = {"used": list(seen.networks), "nccl": seen.nccl}
        if warning := diagnosis.silent_tcp(life.state, seen):
            self.observer.warnings.append(warning)

    # -- the measurement

    def _measure(
        self,
        life: Life,
        before: metrics.Counters,
        evidence: log.Speculation,
        files: Sequence[CheckedFile],
    ) -> None:
        observer, wanted = self.observer, self.observer.wanted
        completions: list[client.Completion] = []
        started = observer.clock()
        while True:
            number = len(completions)
            texts = [prompt(number + index) for index in range(len(KINDS))]
            completions += life.asked(
                partial(
                    observer.server.stream_all,
                    wanted.served_model,
                    texts,
                    wanted.max_tokens,
                    wanted.concurrency,
                ),
                lambda error: diagnosis.completion_failed(wanted, str(error)),
            )
            ours = Traffic(len(completions), sum(completion.completion_tokens for completion in completions))
            measured = metrics.delta(before, life.settled(before, ours.requests))
            speed = rate.measure(completions, measured)
            self._record(measured, ours, speed)
            observer.say(
                f"{measured.drafts} drafts, {measured.acceptance_rate:.1%} accepted at position 0, {speed}"
            )
            if not measured.drafts or diagnosis.enough(wanted, measured):
                break
            if observer.clock() - started > wanted.measure_timeout:
                break
        if speed.problem:
            observer.warnings.append(f"{rate.UNMEASURABLE}: {speed.problem}")
        self._judge(measured, ours, evidence, files)

    def _record(self, measured: metrics.Delta, ours: Traffic, speed: Rate) -> None:
        value = speed.tokens_per_second
        self.observer.result |= {
            "drafts": measured.drafts,
            "draft_tokens": measured.draft_tokens,
            "accepted": measured.accepted,
            "accepted_per_position": list(measured.per_position),
            "acceptance_rate": round(measured.acceptance_rate, 4),
            "rates": [round(share, 4) for share in measured.rates],
            "mean_acceptance_length": round(measured.mean_acceptance_length, 4),
            "standard_error": round(measured.standard_error, 4),
            "decode_tokens_per_second": None if value is None else round(value, 1),
            "rate": speed.result(),
            "prompts": ours.requests,
            "foreign_share": round(diagnosis.foreign_share(measured, ours), 4),
        }

    def _judge(
        self,
        measured: metrics.Delta,
        ours: Traffic,
        evidence: log.Speculation,
        files: Sequence[CheckedFile],
    ) -> None:
        stop_at(diagnosis.speculation_works(self.observer.wanted, measured, ours, files, evidence))
        if dead := diagnosis.dead_positions(measured):
            self.observer.warnings.append(dead)
        other = diagnosis.foreign(measured, ours, diagnosis.foreign_share(measured, ours))
        if other is not None:
            self.observer.warnings.append(
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
