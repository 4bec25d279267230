from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.progress import Meter


def test_the_meter_tells_done_total_rate_and_time_left():
    now = [0.0]
    lines: list[str] = []
    meter = Meter(lines.append, "org/body", 10_000_000_000, clock=lambda: now[0])
    meter.skip(2_000_000_000)
    for _ in range(20):
        now[0] += 1
        meter.advance(100_000_000)
    assert lines[0] == "org/body: 2.50 GB of 10.00 GB, 100.0 MB/s, 75 s left"
    assert len(lines) == 4


def test_the_meter_forgets_how_fast_it_once_was():
    now = [0.0]
    lines: list[str] = []
    meter = Meter(lines.append, "x", 10_000_000_000, clock=lambda: now[0])
    for step in range(60):
        now[0] += 1
        meter.advance(100_000_000 if step < 20 else 1_000_000)
    assert ", 1.0 MB/s, " in lines[-1]
