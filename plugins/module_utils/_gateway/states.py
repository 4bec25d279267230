# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the servers of a gateway may get: changed in HAProxy, and kept in a file that its next process reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._common import files, store
from .answers import DRAINED, MAINTENANCE, READY, Server
from .haproxy import Haproxy

COMMANDS = {READY: "ready", DRAINED: "drain", MAINTENANCE: "maint"}
PATIENCE = 60.0
"""Seconds to wait for others. Each works for less than one."""


class StatesError(RuntimeError):
    """The states cannot be kept."""


@dataclass(frozen=True)
class States:
    haproxy: Haproxy
    path: str
    """Of the file. Empty to keep none."""

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else judges or changes the servers of this gateway meanwhile: two that drain at once could end a pool together.

        :raises StatesError: somebody else does not end
        """
        if not self.path:
            yield
            return
        try:
            with store.locked(Path(self.path).parent, PATIENCE, lambda text: None):
                yield
        except store.StoreError as error:
            raise StatesError(str(error)) from None

    def give(self, servers: Sequence[Server], state: str) -> None:
        """Set and keep the state of these servers. For whoever is alone.

        :raises HaproxyError: HAProxy refuses
        :raises StatesError: the file cannot be written
        """
        for server in servers:
            self.haproxy.set_state(server, COMMANDS[state])
        if self.path:
            try:
                files.write(Path(self.path), self.haproxy.states().encode(), 0o644)
            except OSError as error:
                raise StatesError(
                    f"{files.unwritable(self.path, error)}. The server has its state, and would lose it when HAProxy is reloaded"
                ) from None
