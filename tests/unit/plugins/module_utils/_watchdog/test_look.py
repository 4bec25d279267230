# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a host: numbers of the GPU, of memory, and a nvidia-smi that never ends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import request
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import look
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.look import Host
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.seen import Gpu


@pytest.mark.parametrize(
    ("line", "gpu"),
    [
        ("96, 12.50, 208, 0x0000000000000028\n", Gpu(96.0, 12.5, 208.0, ("hardware slowdown", "heat"))),
        ("0, [N/A], 208, 0x0000000000000001\n", Gpu(0.0, None, 208.0)),
        ("[N/A], 4.51, [Not Supported]\n", Gpu(None, 4.51, None)),
        ("1, 2, 3, 0x80\n50, 60, 70, 0x40\n", Gpu(1.0, 2.0, 3.0, ("the power supply",))),
        ("", Gpu()),
        ("nan, inf, 1e99, 0x\n", Gpu()),
    ],
)
def test_a_line_of_nvidia_smi(line: str, gpu: Gpu) -> None:
    assert look.gpu_of(line) == gpu


def program(folder: Path, text: str) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "nvidia-smi").chmod(0o755)


def test_an_nvidia_smi_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(look, "SMI_TIMEOUT", 0.3)
    program(tmp_path, "exec sleep 60")
    began = time.monotonic()
    assert look.gpu() == Gpu(silent=True)
    assert time.monotonic() - began < 5


def test_one_without_the_newer_fields_and_none_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, 'case $1 in *reasons*) exit 2;; esac; echo "7, 8, 9"')
    assert look.gpu() == Gpu(7.0, 8.0, 9.0)
    (tmp_path / "nvidia-smi").unlink()
    monkeypatch.setattr(request, "PATH", str(tmp_path))
    assert look.gpu() == Gpu()


def test_memory_of_a_host(tmp_path: Path) -> None:
    host = Host(tmp_path, proc=tmp_path)
    assert (look.available(host), look.swapped_in(host)) == (None, None)
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable: 4 kB\n")
    (tmp_path / "vmstat").write_text("pswpin_x 9\npswpin 3\npswpout 8\n")
    assert look.available(host) == 4096
    assert (look.swapped_in(host) or 0) % 3 == 0
    (tmp_path / "meminfo").write_text("MemTotal: many\n")
    assert look.available(host) is None
