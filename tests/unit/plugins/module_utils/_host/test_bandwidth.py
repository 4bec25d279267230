from __future__ import annotations

import json

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import bandwidth
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.bandwidth import Lane
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import (
    CommandAbsentError,
    ProbeError,
)

TCP, RDMA = Lane("iperf3", 5201), Lane("ib_write_bw", 5202, "rocep1s0f0", 3)
REPORT = json.dumps({"end": {"sum_sent": {}, "sum_received": {"bits_per_second": 43.25e9}}})
TABLE = """
                    RDMA_Write BW Test
 Dual-port       : OFF          Device         : rocep1s0f0
 remote address: LID 0000 QPN 0x01a2 PSN 0x5e RKey 0x1fff VAddr 0x00ffff
---------------------------------------------------------------------------------------
 #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]
 65536      1058000          0.00               110.93             0.211584
---------------------------------------------------------------------------------------
"""


class Host:
    """What runs on a host, and what it answers: a text, or an error, by the first word of a command."""

    def __init__(self, **answers):
        self.answers, self.ran, self.slept = answers, [], []

    def run(self, argv, timeout):
        self.ran.append((list(argv), timeout))
        answer = self.answers.get(argv[0].replace("-", "_"), "")
        if argv[1:] == ["--version"] and not isinstance(answer, CommandAbsentError):
            return ""
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def started(self) -> list[str]:
        (argv,) = [argv for argv, _timeout in self.ran if argv[0] == "systemd-run"]
        return argv


def test_a_server_is_for_the_peers_alone_and_for_a_while():
    host = Host(systemctl=ProbeError("not loaded"))
    bandwidth.listen(TCP, "192.168.100.12", ["192.168.100.11", "192.168.100.13"], 900, host.run)
    argv = host.started()
    assert argv[-6:] == ["iperf3", "--server", "--bind", "192.168.100.12", "--port", "5201"]
    for wanted in (
        "--unit=sparkfleet-fabric-5201.service", "--collect", "--property=RuntimeMaxSec=900", "--property=IPAddressDeny=any",
        "--property=IPAddressAllow=192.168.100.11", "--property=IPAddressAllow=192.168.100.13", "--property=DynamicUser=yes",
        "--property=PrivateDevices=yes",
    ):  # fmt: skip
        assert wanted in argv
    assert not any("Restart" in each for each in argv)


def test_a_server_of_rdma_sees_the_adapter_and_serves_one_client_after_the_other():
    host = Host()
    bandwidth.listen(RDMA, "192.168.100.12", ["192.168.100.11"], 900, host.run)
    argv = host.started()
    command = " ".join(argv[argv.index("ib_write_bw") :])
    assert command.startswith(
        "ib_write_bw --ib-dev rocep1s0f0 --gid-index 3 --port 5202 --bind_source_ip 192.168.100.12"
    )
    assert {"--property=Restart=on-success", "--property=LimitMEMLOCK=infinity"} < set(argv)
    assert "--property=PrivateDevices=yes" not in argv


def test_an_old_server_is_ended_before_and_an_absent_tool_is_told():
    host = Host(iperf3=CommandAbsentError("iperf3 is not there"))
    with pytest.raises(CommandAbsentError, match="iperf3 is not there"):
        bandwidth.listen(TCP, "10.0.0.1", [], 9, host.run)
    assert [argv[:2] for argv, _timeout in host.ran[:2]] == [
        ["systemctl", "stop"],
        ["systemctl", "reset-failed"],
    ]
    with pytest.raises(CommandAbsentError, match="iperf3 is not there"):
        bandwidth.measure(TCP, "10.0.0.1", "10.0.0.2", 5, host.run)
    with pytest.raises(CommandAbsentError, match="systemctl"):
        bandwidth.end(TCP, Host(systemctl=CommandAbsentError("systemctl is not there")).run)


def test_tcp_is_measured_by_what_arrived():
    host = Host(iperf3=REPORT)
    assert bandwidth.measure(TCP, "10.0.0.1", "10.0.0.2", 5, host.run) == 43.25
    argv, timeout = host.ran[-1]
    assert argv[:7] == ["iperf3", "--client", "10.0.0.2", "--bind", "10.0.0.1", "--port", "5201"]
    assert argv[7:9] == ["--time", "5"] and timeout == 20


def test_rdma_is_measured_by_the_average():
    host = Host(ib_write_bw=TABLE)
    assert bandwidth.measure(RDMA, "10.0.0.1", "10.0.0.2", 5, host.run) == 110.93
    assert host.ran[-1][0][-1] == "10.0.0.2" and "--report_gbits" in host.ran[-1][0]


def test_a_server_that_is_not_up_yet_is_asked_again_for_a_few_seconds():
    refused = ProbeError('iperf3 exited 1: {; "error": "unable to connect to server: Connection refused"; }')
    host = Host(iperf3=[refused, refused, REPORT])
    assert bandwidth.measure(TCP, "10.0.0.1", "10.0.0.2", 5, host.run, host.slept.append) == 43.25
    host = Host(iperf3=[refused] * bandwidth.TRIES)
    with pytest.raises(ProbeError, match=r"^iperf3: unable to connect to server: Connection refused$"):
        bandwidth.measure(TCP, "10.0.0.1", "10.0.0.2", 5, host.run, host.slept.append)
    assert len(host.slept) == bandwidth.TRIES - 1


@pytest.mark.parametrize(
    "text", ["", "[]", '{"end": {}}', '{"end": {"sum_received": {"bits_per_second": "fast"}}}', "{"]
)
def test_what_is_no_report_is_told(text):
    with pytest.raises(ProbeError, match="report of iperf3"):
        bandwidth.parse_iperf3(text)


@pytest.mark.parametrize(
    "text", ["", "Couldn't connect to 10.0.0.2:5202", " 65536 x 0.00 110.93 0.2", " 65536 1 0.00 1.2.3 0.2"]
)
def test_what_is_no_table_is_told(text):
    with pytest.raises(ProbeError, match="expected the table of ib_write_bw"):
        bandwidth.parse_perftest(text)
