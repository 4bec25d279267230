# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios' tests share: testinfra on lab Sparks, as root.

testinfra connects with an inventory's variables as they are written. Here it gets what Ansible makes of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("ANSIBLE_CONFIG", str(Path(__file__).parents[1] / "ansible.cfg"))

# Where the scenarios' tests find what they share.
sys.path.insert(0, str(Path(__file__).with_name("lab")))

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.manager import VariableManager
from testinfra.utils import ansible_runner

as_written = ansible_runner.get_ansible_inventory


def as_ansible_sees_it(config: Any, inventory_file: str | None) -> dict[str, Any]:
    inventory = as_written(config, inventory_file)
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[inventory_file])
    variables = VariableManager(loader=loader, inventory=manager)
    for name, written in inventory["_meta"]["hostvars"].items():
        known = variables.get_vars(host=manager.get_host(name))
        templar = Templar(loader=loader, variables=known)
        for key in written:
            if key.startswith("ansible_"):
                written[key] = templar.template(known[key])
    return inventory


ansible_runner.get_ansible_inventory = as_ansible_sees_it


@pytest.fixture
def name(host: Any) -> str:
    """The host's name in the inventory."""
    return host.backend.get_hostname()


@pytest.fixture
def sudo(host: Any) -> Callable[[str], str]:
    """Runs a command as root; it must succeed. Gives what it printed."""

    def run(command: str) -> str:
        done = host.run(f"sudo {command}")
        assert done.rc == 0, done.stderr
        return done.stdout.strip()

    return run
