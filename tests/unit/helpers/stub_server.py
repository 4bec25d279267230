# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stub of the lab in this process, for tests that want a server and no container."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.server import served

_PATH = Path(__file__).resolve().parents[3] / "molecule/lab/stub/server.py"
_SPEC = importlib.util.spec_from_file_location("sparkfleet_stub", _PATH)
assert _SPEC and _SPEC.loader
stub = importlib.util.module_from_spec(_SPEC)
sys.modules["sparkfleet_stub"] = stub
_SPEC.loader.exec_module(stub)


@contextmanager
def serving(**settings: Any) -> Iterator[tuple[Any, str]]:
    """A stub that answers, and its address. It ends with the block."""
    given = {"speculation": {"method": "mtp", "num_speculative_tokens": 1}, "step": 0.0} | settings
    played = stub.Stub(stub.Settings(**given))
    server = stub.StubServer(("127.0.0.1", 0), played)
    with served(server):
        yield played, f"http://127.0.0.1:{server.server_address[1]}"
