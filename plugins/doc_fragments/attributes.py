# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes of modules that are alike in them. A module whose own differ in one says that one itself."""

from __future__ import annotations


class ModuleDocFragment:
    LOOKS = r"""
attributes:
  check_mode:
    description: Looks and changes nothing, in check mode as otherwise.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
"""

    REPORTS = r"""
options:
  directory:
    description: Directory on the controller for the files. It is made.
    type: str
    required: true
attributes:
  check_mode:
    description: Writes the report in check mode, too. It is no change of any host.
    support: full
  diff_mode:
    description: Nothing to compare.
    support: none
  idempotent:
    description: Every report has a time of its own.
    support: none
"""
