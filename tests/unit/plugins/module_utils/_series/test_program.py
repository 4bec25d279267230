"""The program of the timer, from a state directory to the node exporter's folder."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import (
    CommandAbsentError,
    ProbeError,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._run import run_lock
from ansible_collections.sparkfleet.vllm.plugins.module_utils._series import program
from helpers.promtool import PROMTOOL, needs_promtool

from .test_spark import VERDICT, state


def smi(argv: Sequence[str], _seconds: float) -> str:
    return "0, 96, 71, 41.25, 2418\n" if "utilization" in argv[1] else "0" + ", Not Active" * 5 + "\n"


@pytest.fixture
def spark(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    (folder / "watchdog").mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps(state()))
    (folder / "watchdog/verdict.json").write_text(json.dumps(VERDICT))
    run = run_lock.record(
        {"id": "1", "holder": "me@c", "controller": "", "pid": 1}, 120, "2026-11-30T20:00:00Z"
    )
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def written(spark: Path, run: program.Run = smi) -> dict[str, str]:
    out = spark.parent / "out"
    out.mkdir(exist_ok=True)
    assert program.main(["program", str(spark), str(out)], run) == 0
    return {path.name: path.read_text() for path in out.iterdir()}


def test_two_files_whole_and_readable(spark: Path) -> None:
    made = written(spark)
    assert set(made) == {program.SPARK, program.GPU}
    lines = made[program.SPARK].splitlines()
    assert "sparkfleet_run_held 1" in lines
    assert 'sparkfleet_watchdog_finding{kind="wedged"} 1' in lines
    assert 'sparkfleet_gpu_power_watts{gpu="0"} 41.25' in made[program.GPU].splitlines()
    assert {oct(path.stat().st_mode & 0o777) for path in (spark.parent / "out").iterdir()} == {"0o644"}


@needs_promtool
def test_prometheus_takes_them(spark: Path) -> None:
    for content in written(spark).values():
        done = subprocess.run(
            [str(PROMTOOL), "check", "metrics"], input=content, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_damaged_file_costs_only_its_own_series(spark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (spark / "state.json").write_text("{")
    (spark / "gate.json").write_bytes(b"\xff")
    made = written(spark)[program.SPARK]
    assert "sparkfleet_served_info" not in made
    assert "sparkfleet_run_held 1" in made
    said = capsys.readouterr().err
    assert "state.json" in said and "gate.json" in said


def test_a_huge_file_is_not_read_whole(spark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (spark / "gate.json").write_text(" " * 100_000)
    written(spark)
    assert "more than 65536 bytes" in capsys.readouterr().err


def test_without_nvidia_smi_there_are_no_series_of_a_gpu(
    spark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Sequence[str]] = []

    def absent(argv: Sequence[str], _seconds: float) -> str:
        asked.append(argv)
        raise CommandAbsentError("nvidia-smi is not there")

    assert written(spark, absent)[program.GPU].strip() == ""
    assert len(asked) == 1
    assert "nvidia-smi is not there" in capsys.readouterr().err


def test_a_question_that_the_driver_refuses_costs_only_that_question(spark: Path) -> None:
    def old(argv: Sequence[str], seconds: float) -> str:
        if "throttle" in argv[1]:
            raise ProbeError('Field "clocks_throttle_reasons.hw_slowdown" is not a valid field to query.')
        return smi(argv, seconds)

    made = written(spark, old)[program.GPU]
    assert "sparkfleet_gpu_power_watts" in made and "throttled" not in made


def test_a_full_disk_is_said(
    spark: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(program.files, "write", full)
    assert program.main(["program", str(spark), str(spark)], smi) == 1
    assert "seen: No space left on device" in capsys.readouterr().err
