# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each diagnosis from observations alone: no network, no engine. The code is what playbooks compare."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate import diagnosis as d
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.container import FileSeen, State
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.diagnosis import (
    CheckedFile,
    Finding,
    Traffic,
    Wanted,
    WantedFile,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.log import (
    ASKED_TO_STOP,
    Speculation,
    Transport,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.metrics import Counters, Delta

MTP = {"method": "mtp", "num_speculative_tokens": 1, "model": "/models/draft"}
WANTED = Wanted("vllm", "huihui-gemma4", speculation=MTP, acceptance_floor=0.4)
STATE = State("a" * 64, "running", "2026-11-23T21:00:00.000000000Z", pid=10)
LOG = Speculation(True, "mtp", 1, ("Gemma4ForCausalLM", "Gemma4MTPModel"))
COUNTERS = Counters(0, 0, 0, {0: 0}, 0, 0, 0, 1.0)
OURS = Traffic(4, 1024)


def measured(drafts: int = 604, accepted: int = 417, generated: int = 1024) -> Delta:
    return Delta(drafts, drafts, accepted, (accepted,), generated, 4)


def code(finding: Finding | None) -> str | None:
    return finding.code if finding else None


def test_a_finding_says_three_things() -> None:
    text = str(d.missing(WANTED))
    assert [line.partition(":")[0] for line in text.splitlines()[1:]] == ["expected", "seen", "do next"]


# -- the process


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (STATE, True),
        (replace(STATE, status="exited"), False),
        (replace(STATE, started_at="2026-11-23T21:00:01Z"), False),
        (replace(STATE, id="b" * 64), False),
        (None, False),
    ],
)
def test_same_life(now: State | None, expected: bool) -> None:
    assert d.same_life(STATE, now) is expected


@pytest.mark.parametrize(
    ("now", "reason", "expected", "said"),
    [
        (
            replace(STATE, status="exited", exit_code=1),
            "ValueError: x",
            "server_died",
            "exit code 1: ValueError: x",
        ),
        (replace(STATE, status="exited", exit_code=0), None, "server_died", "the log names no reason"),
        (replace(STATE, status="exited", oom_killed=True), None, "server_died", "out of memory"),
        (replace(STATE, status="restarting", restarts=2), "ValueError: x", "server_died", "2 times"),
        (
            replace(STATE, started_at="2026-11-23T22:00:00Z", restarts=1),
            "ValueError: x",
            "server_died",
            "1 times",
        ),
        (
            replace(STATE, started_at="2026-11-23T22:00:00Z"),
            None,
            "server_restarted",
            "no error in the log before",
        ),
        (
            replace(STATE, started_at="2026-11-23T22:00:00Z"),
            ASKED_TO_STOP,
            "server_restarted",
            "no error in the log before",
        ),
        (replace(STATE, id="b" * 64), None, "server_replaced", "bbbbbbbbbbbb"),
        (
            replace(STATE, status="created", error="no such device"),
            None,
            "container_not_running",
            "no such device",
        ),
        (replace(STATE, status="paused"), None, "container_not_running", "paused"),
        (None, None, "server_died", "removed"),
    ],
)
def test_ended(now: State | None, reason: str | None, expected: str, said: str) -> None:
    finding = d.ended(WANTED, STATE, now, reason)
    assert finding.code == expected
    assert said in finding.seen


@pytest.mark.parametrize(
    ("reason", "do"),
    [
        ("argument --speculative-config/-sc: Value { cannot be converted", "correct speculative-config"),
        ("unrecognized arguments: --frob", "correct the recipe's serve arguments"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "free memory"),
        ("RuntimeError: mat1 and mat2 shapes cannot be multiplied", "do not fit"),
        ("AssertionError: assert self.data.shape == loaded_weight.shape", "do not fit"),
        ("KeyError: 'x'", "docker logs vllm"),
        (
            "ValueError: 24.0 GiB KV cache is needed, which is larger than the available",
            "raise gpu-memory-utilization",
        ),
        ("ValueError: No available memory for the cache blocks. Try", "raise gpu-memory-utilization"),
        ("ValueError: Free memory on device cuda:0 (50/119 GiB)", "lower gpu-memory-utilization"),
        ("TypeError: A.__init__() got an unexpected keyword argument 'sinks'", "docker logs vllm"),
        ("torch.AcceleratorError: CUDA error: invalid argument", "docker logs vllm"),
        ("argument --port: invalid int value: 'x'", "correct the recipe's serve arguments"),
        (
            "PTXASError: no (ptxas fatal: Value 'sm_999a' is not defined for option 'gpu-name')",
            "an image whose CUDA",
        ),
        ("[Errno 98] bind: address already in use", "what else listens"),
        ("EngineCore_DP0 was ended by signal 9 (SIGKILL)", "dmesg"),
        ("Engine core proc EngineCore_DP0 died unexpectedly, shutting down client.", "dmesg"),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 1)",
            "update the host's driver",
        ),
    ],
)
def test_a_death_says_what_to_do(reason: str, do: str) -> None:
    assert do in d.ended(WANTED, STATE, replace(STATE, status="exited", exit_code=1), reason).do


@pytest.mark.parametrize(
    ("per_position", "position"),
    [
        ((600, 385, 215, 108, 62, 0, 0, 0), 5),
        ((580, 140, 30, 8, 0), 1),
        ((740, 500, 370, 250), None),
        ((500,), None),
        ((600, 420, 300, 60, 49, 0), 3),
        ((100, 49, 0), None),  # too few were right so far to say it
        ((60, 16), None),  # 27 %, and by chance it may be a third
        ((60, 61), None),  # of two scrapes that were not of one moment
        ((0, 0, 0), None),
    ],
)
def test_positions_that_are_of_no_use_are_told(per_position: tuple[int, ...], position: int | None) -> None:
    said = d.dead_positions(Delta(1000, 1000 * len(per_position), sum(per_position), per_position, 2000, 4))
    if position is None:
        assert said is None
    else:
        assert (
            said and f"position {position} was" in said and f"num_speculative_tokens to {position}," in said
        )


def test_not_ready_shows_the_end_of_the_log() -> None:
    finding = d.not_ready(WANTED, "no sign of progress for 300 s", "compiling", ["one", "two"])
    assert finding.code == "not_ready"
    assert "compiling" in finding.seen
    assert finding.seen.endswith("\n  one\n  two")


# -- files

LOCKED = WantedFile("/opt/vllm/gemma4_mtp.py", "1" * 32, "2" * 64, "/srv/p.py")
RIGHT = FileSeen("1" * 32, "2" * 64, STATE.started - 60)
WRONG = FileSeen("8" * 32, "9" * 64, STATE.started - 60)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (CheckedFile(LOCKED, WRONG, RIGHT, None), "nothing is mounted there"),
        (CheckedFile(LOCKED, WRONG, RIGHT, "/srv/other.py"), "another file is mounted there, /srv/other.py"),
        (CheckedFile(LOCKED, WRONG, RIGHT, "/srv/p.py"), "holds an older file"),
        (CheckedFile(LOCKED, WRONG, WRONG, "/srv/p.py"), "the file on the host is not the locked one either"),
        (CheckedFile(LOCKED, WRONG, FileSeen(error="no such file"), None), "the file on the host is not"),
        (CheckedFile(replace(LOCKED, host_path=None), WRONG), "the image was taken to carry it"),
        (CheckedFile(LOCKED, FileSeen(error="no such file"), RIGHT, None), "nothing is mounted there"),
        # A collision of md5 alone does not pass.
        (CheckedFile(LOCKED, replace(RIGHT, sha256="9" * 64), RIGHT, "/srv/p.py"), "holds an older file"),
    ],
)
def test_patch_not_applied(file: CheckedFile, said: str) -> None:
    finding = d.file_contents([CheckedFile(LOCKED, RIGHT, RIGHT, "/srv/p.py"), file])
    assert finding is not None
    assert finding.code == "patch_not_applied"
    assert said in finding.summary


def test_patch_not_applied_reports_the_three_sums() -> None:
    finding = d.file_contents([CheckedFile(LOCKED, WRONG, RIGHT, None)])
    assert finding is not None
    assert "1" * 32 in finding.expected
    assert f"in the container md5 {'8' * 32}" in finding.seen
    assert f"on the host md5 {'1' * 32}" in finding.seen


def test_the_locked_file_passes() -> None:
    assert d.file_contents([CheckedFile(LOCKED, RIGHT, RIGHT, "/srv/p.py")]) is None
    assert d.file_contents([CheckedFile(replace(LOCKED, sha256=None, host_path=None), RIGHT)]) is None


def test_a_file_that_cannot_be_read_matches_nothing() -> None:
    assert not WantedFile("/p").matches(FileSeen(error="no such file"))


@pytest.mark.parametrize(
    ("changed", "expected"), [(-60.0, None), (0.0, None), (2.0, "file_newer_than_process"), (None, None)]
)
def test_age(changed: float | None, expected: str | None) -> None:
    seen = replace(RIGHT, changed=None if changed is None else STATE.started + changed)
    assert code(d.file_ages([CheckedFile(LOCKED, seen)], STATE)) == expected


# -- what is served


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [("r/vllm@sha256:1", False), ("mirror:5000/vllm@sha256:1", False), ("r/vllm@sha256:2", True), ("r/vllm:1", True), ("", True)],
)  # fmt: skip
def test_the_image_is_the_digest_and_not_the_name(seen: str, wrong: bool) -> None:
    finding = d.image(replace(WANTED, image="r/vllm@sha256:1"), replace(STATE, image=seen))
    assert (finding is not None) is wrong
    assert finding is None or (finding.code, finding.expected) == ("wrong_image", "r/vllm@sha256:1")
    assert d.image(WANTED, replace(STATE, image=seen)) is None, "none is asked for"


def test_model() -> None:
    assert d.model(WANTED, ["huihui-gemma4", "alias"]) is None
    finding = d.model(WANTED, ["llama"])
    assert finding is not None
    assert (finding.code, finding.seen) == ("wrong_model", "llama")


ABSENT = replace(COUNTERS, drafts=None, draft_tokens=None, accepted=None, per_position={})
ARGV = ("vllm", "serve", "/models/body", "--speculative-config", '{"method":"mtp"}')


@pytest.mark.parametrize(
    ("wanted", "counters", "log", "argv", "expected"),
    [
        (MTP, COUNTERS, LOG, ARGV, None),
        (MTP, COUNTERS, Speculation(), ARGV, None),
        (MTP, ABSENT, Speculation(False), ("vllm", "serve"), "speculation_absent"),
        (MTP, ABSENT, Speculation(), ("vllm", "serve"), "speculation_absent"),
        (MTP, ABSENT, Speculation(False), ARGV, "speculation_ignored"),
        (MTP, ABSENT, LOG, ("vllm", "serve", "--config", "x.yml"), "speculation_ignored"),
        (MTP, replace(ABSENT, generated=None), LOG, ARGV, "speculation_absent"),
        (MTP, COUNTERS, replace(LOG, method="draft_model"), ARGV, "speculation_mismatch"),
        (MTP | {"method": "gemma4_mtp"}, COUNTERS, LOG, ARGV, None),
        (
            {"method": "eagle3", "num_speculative_tokens": 1},
            COUNTERS,
            replace(LOG, method="eagle3"),
            ARGV,
            None,
        ),
        ({"method": "eagle3", "num_speculative_tokens": 1}, COUNTERS, LOG, ARGV, "speculation_mismatch"),
        (MTP, replace(COUNTERS, per_position={0: 0, 1: 0}), LOG, ARGV, "speculation_mismatch"),
        ({"model": "/d"}, replace(COUNTERS, per_position={0: 0, 1: 0}), LOG, ARGV, None),
        (None, ABSENT, Speculation(False), (), None),
        (None, COUNTERS, LOG, ARGV, "speculation_unexpected"),
    ],
)
def test_speculation_set_up(
    wanted: dict[str, Any] | None,
    counters: Counters,
    log: Speculation,
    argv: tuple[str, ...],
    expected: str | None,
) -> None:
    assert code(d.speculation_set_up(wanted, counters, log, argv)) == expected


def test_stats_off_is_told_from_speculation_off() -> None:
    finding = d.speculation_set_up(MTP, replace(ABSENT, generated=None), LOG, ARGV)
    assert finding is not None
    assert "disable-log-stats" in finding.do


# -- the measurement


@pytest.mark.parametrize(
    ("delta", "wanted", "expected"),
    [
        (measured(), WANTED, None),
        (measured(604, 242), WANTED, None),  # 40.07 %
        (measured(1000, 400), WANTED, None),
        (measured(604, 241), WANTED, "acceptance_below_floor"),  # 39.90 %
        (measured(0, 0), WANTED, "no_drafts"),
        (measured(1020, 0), WANTED, "drafts_never_accepted"),
        (measured(58, 1), WANTED, "too_few_drafts"),
        (measured(199, 199), WANTED, "too_few_drafts"),
        (measured(generated=1400), WANTED, "foreign_traffic"),
        (measured(generated=1070), WANTED, None),  # 4.3 % of others
        (measured(generated=1400), replace(WANTED, foreign_traffic="warn"), None),
        (
            measured(604, 100, generated=1400),
            replace(WANTED, foreign_traffic="warn"),
            "acceptance_below_floor",
        ),
        # Nobody's drafts were accepted, not even the others': traffic does not excuse that.
        (measured(1020, 0, generated=9000), WANTED, "drafts_never_accepted"),
        (measured(604, 0), replace(WANTED, acceptance_floor=0.0), "drafts_never_accepted"),
    ],
)
def test_speculation_works(delta: Delta, wanted: Wanted, expected: str | None) -> None:
    assert code(d.speculation_works(wanted, delta, OURS, [], LOG)) == expected


def test_never_accepted_names_what_is_known() -> None:
    log = replace(LOG, warnings=("No target layer of type 'x' for draft layer 0",))
    files = [CheckedFile(LOCKED, RIGHT, RIGHT, "/srv/p.py")]
    finding = d.speculation_works(WANTED, measured(236, 0), OURS, files, log)
    assert finding is not None
    assert "acceptance 0 of 236 drafts" in finding.summary
    assert "gemma4_mtp.py is the locked one" in finding.seen
    assert "No target layer of type" in finding.seen


def test_never_accepted_without_a_draft_architecture() -> None:
    finding = d.speculation_works(
        WANTED, measured(236, 0), OURS, [], Speculation(architectures=("Gemma4ForCausalLM",))
    )
    assert finding is not None
    assert "no architecture of a draft" in finding.seen


def test_below_by_less_than_chance_says_so() -> None:
    near = d.speculation_works(WANTED, measured(800, 308), OURS, [], LOG)  # 38.5 % ± 1.7 %
    far = d.speculation_works(WANTED, measured(800, 200), OURS, [], LOG)
    assert near is not None
    assert far is not None
    assert "chance" in near.summary
    assert "minimum_drafts" in near.do
    assert "chance" not in far.summary


@pytest.mark.parametrize(
    ("drafts", "accepted", "expected"),
    [
        (199, 199, False),
        (200, 138, True),  # 69 %, nine errors above
        (200, 84, False),  # 42 %: could be 38
        (200, 76, False),  # 38 %: could be 42
        (200, 0, True),
        (800, 336, True),  # still 42 %, and four times the minimum: the estimate decides
    ],
)
def test_enough(drafts: int, accepted: int, expected: bool) -> None:
    assert d.enough(WANTED, measured(drafts, accepted)) is expected


def test_foreign_share_without_a_token_counter_counts_requests() -> None:
    assert d.foreign_share(Delta(1, 1, 1, (1,), None, 8), OURS) == 0.5
    assert d.foreign_share(Delta(1, 1, 1, (1,), None, None), OURS) == 0.0
    assert d.foreign_share(Delta(1, 1, 1, (1,), 1000, 4), OURS) == 0.0


# -- the network of a unit

UNIT = replace(STATE, argv=("vllm", "serve", "/models/body", "--nnodes", "2"), rdma="rocep1s0f0,roceP2p1s0f0")


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Transport(("Socket",), "2.28.9"), ("do not talk", "seen NET/Socket (NCCL 2.28.9); do: compare NCCL_IB_HCA")),
        (Transport(("IB", "Socket")), ("do not talk", "seen NET/IB, NET/Socket; do: compare")),
        (Transport(("gloo",)), ("do not talk", "seen gloo; do: compare")),
        (Transport((), "2.28.9"), ("nothing tells", "no line of NCCL about a network (NCCL 2.28.9); do: start it with NCCL_DEBUG: INFO")),
    ],
)  # fmt: skip
def test_rdma_that_is_given_and_not_used_is_told(seen: Transport, words: tuple[str, ...]) -> None:
    said = d.silent_tcp(UNIT, seen) or ""
    assert "expected NET/IB alone in the log, over rocep1s0f0,roceP2p1s0f0" in said
    assert [word for word in words if word not in said] == []


def test_rdma_that_is_used_or_not_given_is_no_warning() -> None:
    assert d.silent_tcp(UNIT, Transport(("IB",))) is None
    assert d.silent_tcp(replace(UNIT, rdma=""), Transport(("Socket",))) is None
    assert d.silent_tcp(replace(UNIT, argv=("vllm", "serve", "/models/body")), Transport()) is None
