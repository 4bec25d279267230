# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.secrets import mask


def test_mask_without_secrets() -> None:
    assert mask("nothing to hide", []) == "nothing to hide"
