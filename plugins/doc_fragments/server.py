# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that query a running vLLM server. A module documents an option itself if it means more there."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  base_url:
    description: Where the server answers, seen from the host.
    type: str
    default: http://127.0.0.1:8000
  served_model:
    description: Name that C(/v1/models) must list, and to which requests are sent.
    type: str
    required: true
  api_key:
    description: API key of the server, if it has one.
    type: str
  speculation:
    description:
      - The speculative config that the server was given. C(method) and C(num_speculative_tokens) are compared with
        what vLLM reports; other keys are allowed and ignored.
      - Leave it out for a server without speculation. Such a server must publish no counters of speculation.
    type: dict
  max_tokens:
    description: Tokens that each prompt generates, at least 200.
    type: int
    default: 256
  ready_timeout:
    description: Seconds until C(/health) must answer. A first start with a cold compile cache takes up to 20 minutes.
    type: int
    default: 1200
  idle_timeout:
    description: Seconds without a new line in the log of a server that is not ready yet, after which it counts as stuck.
    type: int
    default: 300
  foreign_traffic:
    description:
      - What to do if more than 5 percent of the tokens generated meanwhile were for other clients. The counters
        cover the whole server and do not tell requests apart.
      - V(warn) continues with the mixed measurement.
    type: str
    choices: [fail, warn]
    default: fail
requirements:
  - requests
  - prometheus_client
"""
