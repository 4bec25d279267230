"""The text format of Prometheus."""

from __future__ import annotations

import math

from ansible_collections.sparkfleet.vllm.plugins.module_utils._series.text import LABEL, MOST, Sample, text
from prometheus_client.parser import text_string_to_metric_families

HELPS = {"a": "An a.", "b": "A b."}


def test_samples_of_one_name_stand_together() -> None:
    made = text([Sample("b", 1), Sample("a", 0.5, {"x": "1"}), Sample("b", 2, {"y": "z"})], HELPS)
    assert made.splitlines() == [
        "# HELP b A b.",
        "# TYPE b gauge",
        "b 1",
        'b{y="z"} 2',
        "# HELP a An a.",
        "# TYPE a gauge",
        'a{x="1"} 0.5',
    ]
    assert made.endswith("\n")


def test_a_label_holds_anything() -> None:
    odd = 'a"b\\c\nd' + "é" * LABEL
    ((family,),) = [list(text_string_to_metric_families(text([Sample("a", 1, {"x": odd})], HELPS)))]
    assert family.samples[0].labels["x"] == odd.replace("\n", " ")[:LABEL]


def test_numbers_that_are_none() -> None:
    made = text([Sample("a", math.inf, {"x": "1"}), Sample("a", -math.inf), Sample("b", math.nan)], HELPS)
    assert [line.split()[1] for line in made.splitlines() if line[0] != "#"] == ["+Inf", "-Inf", "NaN"]


def test_a_file_has_an_end() -> None:
    made = text([Sample("a", number, {"x": str(number)}) for number in range(MOST + 5)], HELPS)
    assert made.count("\na{") == MOST
