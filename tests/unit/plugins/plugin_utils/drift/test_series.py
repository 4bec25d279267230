"""The drift report as series."""

from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.drift.series import of_report

from .test_report import FLEET, made


def test_hosts_that_were_judged_have_the_number_of_their_differences() -> None:
    lines = of_report(made(**FLEET)).splitlines()
    assert "sparkfleet_drift_timestamp_seconds 1795492800" in lines
    assert [line for line in lines if line.startswith("sparkfleet_drift_findings{")] == [
        'sparkfleet_drift_findings{spark="clean"} 0',
        'sparkfleet_drift_findings{spark="warned"} 0',
        'sparkfleet_drift_findings{spark="edited"} 1',
    ]
