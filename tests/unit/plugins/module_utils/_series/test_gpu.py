"""What nvidia-smi answers, as series."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._series import gpu
from ansible_collections.sparkfleet.vllm.plugins.module_utils._series.text import Sample

NUMBERS, REASONS = gpu.QUERIES


def test_numbers_come_in_base_units() -> None:
    assert gpu.parse("0, 96, 71, 41.25, 2418\n", NUMBERS) == [
        Sample("sparkfleet_gpu_utilisation_ratio", 0.96, {"gpu": "0"}),
        Sample("sparkfleet_gpu_temperature_celsius", 71, {"gpu": "0"}),
        Sample("sparkfleet_gpu_power_watts", 41.25, {"gpu": "0"}),
        Sample("sparkfleet_gpu_clock_hertz", 2_418_000_000, {"gpu": "0"}),
    ]


def test_what_the_gpu_does_not_tell_is_left_out() -> None:
    (only,) = gpu.parse("0, [N/A], [Not Supported], 4.5, nan\n", NUMBERS)
    assert only.name == "sparkfleet_gpu_power_watts"


def test_reasons_to_slow_down() -> None:
    found = gpu.parse("0, Not Active, Active, Not Active, [N/A], Active\n", REASONS)
    assert {sample.labels["reason"]: sample.value for sample in found} == {
        "hw_slowdown": 0,
        "hw_thermal": 1,
        "hw_power_brake": 0,
        "sw_power_cap": 1,
    }


@pytest.mark.parametrize(
    "line", ["", "0", "0, 1, 2, 3, 4, 5", "No devices were found", "x, 1, 2, 3, 4", "²,1,2,3,4"]
)
def test_a_line_of_another_form_is_left_out(line: str) -> None:
    assert gpu.parse(line + "\n1, 0, 40, 5, 208\n", NUMBERS)[0].labels == {"gpu": "1"}


def test_every_series_says_what_it_is() -> None:
    found = gpu.parse("0,1,1,1,1", NUMBERS) + gpu.parse("0" + ",Active" * len(REASONS), REASONS)
    assert {sample.name for sample in found} == set(gpu.HELPS)
