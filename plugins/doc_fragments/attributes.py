# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes that several modules share. A module that differs in one states that one in its own documentation."""

from __future__ import annotations


class ModuleDocFragment:
    LOOKS = r"""
attributes:
  check_mode:
    description: Changes nothing, with and without check mode.
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
    description: Directory on the controller for the files. The module creates it.
    type: str
    required: true
attributes:
  check_mode:
    description: Writes the report in check mode, too. No host changes.
    support: full
  diff_mode:
    description: Nothing to compare.
    support: none
  idempotent:
    description: Every report contains its time.
    support: none
"""
