# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine says when it cannot give a container its GPU, and what to do about it.

The words are those of dockerd (moby 20.10 to 29), containerd, runc and the NVIDIA Container Toolkit (1.13 to 1.19). The probe asks
for the same devices as the server. What they say to the probe they would say to the server, after the old one has gone.
"""

from __future__ import annotations

import re

_CURES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), cure)
    for pattern, cure in [
        (
            r"driver/library version mismatch",
            "reboot the host: its driver was updated, and the old one is still loaded",
        ),
        (
            r"could not select device driver",
            "install the NVIDIA Container Toolkit, and restart Docker: it looks for the toolkit when it starts",
        ),
        (
            r"mode 'cdi'|requested mode.{0,20}cdi|cdi device|unresolvable cdi",
            "see nvidia-container-runtime.mode in /etc/nvidia-container-runtime/config.toml, and nvidia-ctk cdi list",
        ),
        (
            r"nvml error|nvidia-container-cli|nvidia-container-runtime|libnvidia",
            "see that nvidia-smi answers on the host",
        ),
        (
            r"unknown or invalid runtime name|invalid runtime|unknown runtime",
            "name the runtime in daemon.json (nvidia-ctk runtime configure), and restart Docker",
        ),
        (
            r"adding custom device",
            "see that the host has it and its driver is loaded, or take it from serve.devices of the recipe",
        ),
        (
            r"error setting rlimit",
            "see the limits of the engine itself (systemctl show docker -p LimitMEMLOCK), or lower serve.ulimits of the recipe",
        ),
        (
            r"error running (?:prestart|createruntime|createcontainer|startcontainer)? ?hook|error gathering device information"
            r"|error modifying oci spec|failed to inject",
            "see journalctl -u docker for the hook that failed",
        ),
    ]
)


def cure(said: str) -> str | None:
    """What to do when an engine refused a container because of its devices or its runtime; None for any other reason."""
    text = said.lower()
    return next((cure for pattern, cure in _CURES if pattern.search(text)), None)
