# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flags of dockerd as keys of daemon.json: dockerd refuses a file that sets one of them again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SHORT = {
    "D": "debug",
    "G": "group",
    "H": "hosts",
    "b": "bridge",
    "g": "data-root",
    "l": "log-level",
    "p": "pidfile",
    "s": "storage-driver",
}
# If a flag may be given several times, its key is a list with a plural name.
MANY = {
    "add-runtime": "runtimes",
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "feature": "features",
    "graph": "data-root",
    "host": "hosts",
    "host-gateway-ip": "host-gateway-ips",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}
# moby daemon/config, skipDuplicates: only for this key dockerd unites the flags and the file.
UNITED = "runtimes"


def keys(argv: Sequence[str]) -> list[str]:
    """Keys of daemon.json that a command line of dockerd sets. Without values: a proxy's may hold a password."""
    found = []
    for word in argv[1:]:
        if word.startswith("--"):
            name = word[2:].partition("=")[0]
            found.append(MANY.get(name, name))
        elif word.startswith("-") and word[1:2] in SHORT:
            found.append(SHORT[word[1]])
    return sorted({*found} - {"", "config-file", "validate"})


def conflict(flags: Iterable[str], content: Iterable[str]) -> str | None:
    """Why dockerd would not start, or reload, with both; None if it would."""
    # A file may still have the name of the flag, as before Docker 28.
    both = [key for key in content if MANY.get(key, key) in set(flags) - {UNITED}]
    if not both:
        return None
    return (
        f"dockerd runs with {', '.join(both)} as a flag too, and refuses a key that is in both places;"
        " see systemctl cat docker"
    )
