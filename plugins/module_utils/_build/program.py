# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program whose output is read while it runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence


def start(argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a program. `stdout` carries its output and its errors as one stream of lines; its input is empty.

    :param environment: on top of this process's
    :raises OSError: there is no such program, or it may not be run
    """
    # AnsibleModule.run_command returns the output only after the program has ended, and a build takes an hour.
    return subprocess.Popen(  # pylint: disable=ansible-bad-function
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
    )
