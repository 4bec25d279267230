# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every regular expression takes time in proportion to its text: whoever writes the text could stop a run with another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PATIENCE = 900


def test_every_expression_takes_time_in_proportion():
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("patterns.py")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_nothing, last = done.stdout.splitlines()
    assert int(last.split()[0]) > 100 and last.endswith(" expressions, 0 complaints")
