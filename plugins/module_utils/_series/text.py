# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Series in the text format of Prometheus, as the node exporter takes them from a file. Pure.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

LABEL = 200
"""Characters of a label's value. What is written here has some dozens."""
MOST = 500
"""Samples of a file. There are some dozens."""


@dataclass(frozen=True)
class Sample:
    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def text(samples: Iterable[Sample], helps: Mapping[str, str]) -> str:
    """All are gauges. Those of one name stand together, in the order of the first of each.

    :param helps: per name, what the series says
    """
    families: dict[str, list[str]] = {}
    for sample in list(samples)[:MOST]:
        families.setdefault(sample.name, []).append(
            f"{sample.name}{_labels(sample.labels)} {_number(sample.value)}"
        )
    lines = []
    for name, of_name in families.items():
        lines += [f"# HELP {name} {helps[name]}", f"# TYPE {name} gauge", *dict.fromkeys(of_name)]
    return "\n".join([*lines, ""])


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    kept = "".join(each if each.isprintable() else " " for each in value[:LABEL])
    return kept.replace("\\", "\\\\").replace('"', '\\"')


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))
