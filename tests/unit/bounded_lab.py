"""Code that must come to an end, in a process of its own: `re` and the like let nothing else run meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import COLLECTIONS

PATIENCE = 60
"""Seconds. What is tested takes some hundredths of one, and without its bound minutes to days."""


def ends(code: str, given: str = "") -> str:
    """What `code` prints, with `given` on its standard input.

    :raises subprocess.TimeoutExpired: it does not end
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=os.environ | {"PYTHONPATH": str(COLLECTIONS)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
