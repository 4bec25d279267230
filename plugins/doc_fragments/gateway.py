# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the modules on a gateway reach its HAProxy."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  socket:
    description: Socket of HAProxy's master.
    type: path
    default: /run/sparkfleet-gateway/master.sock
  state_file:
    description: Where HAProxy reads the states of its servers when it starts. Empty to keep none.
    type: path
    default: /var/lib/sparkfleet-gateway/servers
"""

    # Of modules that know the set of files.
    FILES = r"""
options:
  directory:
    description: Directory of the set. It holds nothing else.
    type: path
    default: /etc/haproxy/sparkfleet
  files:
    description: Content by name, of those that the group of HAProxy may read. One is C(haproxy.cfg).
    type: dict
    required: true
  secrets:
    description: Content by name of those that only root may read. Never shown.
    type: dict
    default: {}
  group:
    description: Group of HAProxy.
    type: str
    default: haproxy
  program:
    description: HAProxy's program.
    type: path
    default: /usr/sbin/haproxy
"""
