# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in threads that ends together: with the last of it, or with the first failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """Another thread failed: stop here."""


def in_parallel(
    function: Callable[[str], T], items: Sequence[str], workers: int, stopped: threading.Event | None = None
) -> list[T]:
    """`function` of every item, in threads. The first failure sets `stopped`, ends the rest and is raised."""
    pool = ThreadPoolExecutor(max(1, min(workers, len(items) or 1)))
    try:
        futures = [pool.submit(function, item) for item in items]
        done, _pending = wait(futures, return_when=FIRST_EXCEPTION)
        failed = [
            error for future in done if (error := future.exception()) and not isinstance(error, Stopped)
        ]
        if failed:
            raise failed[0]
        return [future.result() for future in futures]
    finally:
        if stopped is not None:
            stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
