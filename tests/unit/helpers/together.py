# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tests run in the same worker: those of a file with a fixture of scope "module", so that it is made once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling, Scheduling


@cache
def shares(file: Path) -> bool:
    return 'scope="module"' in file.read_text()


class Together(LoadScopeScheduling):
    """Each test by itself, but for those. What several tests share is begun first."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if shares(self.config.rootpath / file) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Where nobody asks for another way."""
    return Together(config, log) if config.getvalue("dist") == "load" else None
