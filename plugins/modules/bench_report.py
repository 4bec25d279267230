#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bench_report
short_description: Show and write the speculation measurements of a play's hosts
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Combines the facts C(spark_sweep) of all hosts with the recipe's published figures, shows a table for each host and load, and
    writes the report as JSON, as Markdown and as one HTML page with charts that loads nothing.
  - Runs once for all hosts of the play, on the controller, and connects to nothing. The report includes hosts with C(spark_failure)
    and hosts that did not answer.
options:
  name:
    description: Name of the files, without extension.
    type: str
    default: benchmark
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.reports
"""

EXAMPLES = r"""
- name: Show and write the report
  sparkfleet.vllm.bench_report:
    directory: benchmark
  run_once: true
"""

RETURN = r"""
report:
  description: Content of the JSON file.
  type: dict
  returned: success
  sample: {version: 1, made: "2026-11-26T12:00:00Z", hosts: {spark-1: {failure: "", sweep: {recipe: huihui-gemma4-mtp-n1}, loads: []}}}
files:
  description: The files.
  type: list
  elements: str
  returned: success
  sample: [/home/me/benchmark/benchmark.json, /home/me/benchmark/benchmark.md, /home/me/benchmark/benchmark.html]
"""
