# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose ports a module keeps: the module itself in the host's own network namespace, and a stand-in of systemctl.

It finds no program but those that the test gives it.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import COLLECTIONS
from helpers import netns
from helpers.netns import Host

DRIVER = """
import importlib, json, os, sys
from pathlib import Path
asked = json.load(sys.stdin)
if os.stat("/proc/self/ns/net").st_ino == asked["forbidden"]:
    sys.exit("this is the machine's own network")
sys.path.insert(0, asked["collections"])
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import request, unit
request.PATH, unit.UNITS = asked["path"], Path(asked["units"])
exec(asked["places"])
module = importlib.import_module("ansible_collections.sparkfleet.vllm.plugins.modules." + asked["module"])
with patch_module_args(asked["options"]):
    module.main()
"""
# Asks for a connection again and again, and tells how often it got an answer, whichever, and how often it asked.
INTRUDER = """
import select, socket, sys
tried = answered = 0
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    with socket.socket() as asking:
        asking.setblocking(False)
        asking.connect_ex((sys.argv[1], int(sys.argv[2])))
        tried += 1
        answered += bool(select.select([], [asking], [], 0.001)[1])
print(answered, tried)
"""
SYSTEMCTL = """#!/bin/sh
cd {folder}
echo "$*" >> log
case $1 in
show) [ -e on ] && echo UnitFileState=enabled || echo UnitFileState=disabled
      [ -e on ] && echo ActiveState=active || echo ActiveState=inactive;;
enable) [ -e broken ] && {{ echo "Job failed" >&2; exit 1; }}; : > on;;
disable) rm on;;
esac
"""


class Intruder:
    def __init__(self, host: Host, address: str, port: int) -> None:
        self.process = host.start(sys.executable, "-c", INTRUDER, address, str(port))
        assert self.process.stdout and self.process.stdout.readline() == "begun\n"

    def end(self) -> tuple[int, int]:
        """How often it got an answer, and how often it asked."""
        answered, tried = map(int, self.process.communicate("end\n")[0].split())
        return answered, tried


class Guarded:
    """:param places: what the module's own process does with `asked` before the module runs"""

    def __init__(self, root: Path, host: Host, programs: Path, module: str, places: str) -> None:
        self.root, self.host, self.programs, self.module, self.places = root, host, programs, module, places
        self.name = module.replace("_", "-")
        self.etc, self.units, self.state = root / "etc" / self.name, root / "units", root / "systemd"
        for folder in (self.units, self.state):
            folder.mkdir()
        (self.programs / "rm").symlink_to("/bin/rm")
        (self.programs / "systemctl").write_text(SYSTEMCTL.format(folder=self.state))
        (self.programs / "systemctl").chmod(0o755)

    def ask(self, options: dict[str, Any], **places: Any) -> dict[str, Any]:
        asked = {
            "forbidden": netns.inode(),
            "collections": str(COLLECTIONS),
            "path": str(self.programs),
            "directory": str(self.etc),
            "units": str(self.units),
            "module": self.module,
            "places": self.places,
            "options": {"_ansible_diff": True, **options},
            **places,
        }
        done = self.host.run(sys.executable, "-c", DRIVER, given=json.dumps(asked))
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def call(self, **given: Any) -> dict[str, Any]:
        return self.ask(given)

    def asked(self) -> list[str]:
        """What changed something in systemd."""
        log = self.state / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if not line.startswith("show")]

    def boot(self) -> list[subprocess.CompletedProcess[str]]:
        """What the unit does, in a kernel that has no rule."""
        unit = (self.units / f"sparkfleet-{self.name}.service").read_text()
        commands = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
        return [self.host.run(*shlex.split(each), path=f"{self.programs}:/bin") for each in commands]

    def kinds(self, **given: Any) -> list[str]:
        found = self.call(_ansible_check_mode=True, **given)
        return [finding["kind"] for finding in found["drift"]["findings"]]
