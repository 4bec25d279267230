# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that work on snapshots. Each module documents the purpose of its O(snapshots), and whether it needs them."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  snapshots:
    type: list
    elements: dict
    suboptions:
      repository:
        description: Repository on the Hub, C(org/name).
        type: str
        required: true
      commit:
        description: Commit, 40 hex digits. A branch or tag is refused, because it can move.
        type: str
        required: true
      revision:
        description: The branch, tag or commit that O(snapshots[].commit) was resolved from; for the record.
        type: str
      files:
        description: "Every file of the snapshot: path to C({size, sha256}), size in bytes."
        type: dict
        required: true
  store:
    description: Root of the content-addressed store on the host.
    type: path
    required: true
  max_workers:
    description: Files hashed at the same time.
    type: int
    default: 8
"""

    STORING = r"""
options:
  verify:
    description:
      - V(stat) hashes a file only if its size or time is not the one in the stat cache.
      - V(full) hashes every file first, which also finds silent damage on the disk.
    type: str
    choices: [stat, full]
    default: stat
  disk_reserve:
    description: Space in MiB that must be left in the store's file system. Checked before the first byte.
    type: int
    default: 2048
  lock_timeout:
    description: Seconds to wait for another run that works on the same repository.
    type: int
    default: 3600
"""
