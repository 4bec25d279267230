# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is shown of a change."""

from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import install
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.install import State


def test_the_diff_has_no_key_whoever_hides_it_later() -> None:
    for before, after in [(b"", b"old-key"), (b"old-key", b"new-key"), (b"new-key", b"")]:
        shown = install.differences(State(key=before), State(key=after))
        assert [each["before_header"] for each in shown] == ["key"]
        assert "-key" not in str(shown)
    assert install.differences(State(key=b"a"), State(key=b"a")) == []
