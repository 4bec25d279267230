from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _memory
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import _controller


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "meminfo").write_text(
        "MemTotal:       125000000 kB\nMemAvailable:   100000000 kB\nHugePages_Total:       4\n"
    )
    for pid, name, kib in ((1, "systemd", 900), (7, "vllm", 9000), (9, "sshd", 90), (10, "python3", 5000)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "status").write_text(f"Name:\t{name}\nVmRSS:\t  {kib} kB\n")
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "status").write_text("Name:\tkthreadd\n")  # a kernel thread has no VmRSS
    return tmp_path


def test_meminfo_is_in_bytes_and_counts_stay_counts(proc):
    sizes = _memory.meminfo(proc)
    assert sizes["MemTotal"] == 125_000_000 * 1024
    assert sizes["HugePages_Total"] == 4


def test_the_largest_processes_come_first_and_kernel_threads_do_not_count(proc):
    assert _memory.largest(proc) == [("vllm", 9000 * 1024), ("python3", 5000 * 1024), ("systemd", 900 * 1024)]


@pytest.mark.parametrize("name", [b"\xff\xfe", "a数据处理服务器".encode()[:15], b"a\nVmRSS: 1", b""])
def test_a_process_may_be_called_anything(proc, name):
    """Names are bytes (prctl(2), PR_SET_NAME); the kernel cuts them at 15, and writes a new line in one as \\n."""
    shown = name.replace(b"\n", b"\\n")
    (proc / "9" / "status").write_bytes(b"Name:\t" + shown + b"\nVmRSS:\t  90000 kB\n")
    (proc / "9" / "cgroup").write_bytes(b"0::/user.slice/" + name.replace(b"\n", b"") + b"\n")
    (proc / "9" / "smaps_rollup").write_text("Pss_Anon:  5 kB\n")
    assert _memory.largest(proc, 1) == [(shown.decode(errors="replace").strip(), 90_000 * 1024)]
    assert _memory.holders(proc)[9][1] == 5 * 1024


def test_a_real_process_of_that_name_is_borne():
    code = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'\\xff\\xfe', 0, 0, 0); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert Path(f"/proc/{child.pid}/comm").read_bytes() == b"\xff\xfe\n"
        assert ("\ufffd\ufffd") in {name for name, _size in _memory.largest(Path("/proc"), 10_000)}
        assert child.pid in _memory.holders(Path("/proc"))
        assert _controller.started(child.pid)


def test_groups_of_other_bytes_are_other_groups(proc):
    for pid, name in ((7, b"\xfe"), (9, b"\xff")):
        (proc / str(pid) / "cgroup").write_bytes(b"0::/" + name + b"\n")
        (proc / str(pid) / "smaps_rollup").write_text("Pss_Anon:  5 kB\n")
    held = _memory.holders(proc)
    assert held[7][0] != held[9][0]


def test_a_minimum_wins_over_the_fraction():
    assert _memory.required(100, fraction=0.65, minimum=None) == 65
    assert _memory.required(100, fraction=0.65, minimum=7) == 7


def test_a_shortage_names_expected_seen_holders_and_what_to_do():
    assert _memory.shortage(10 * _memory.GIB, 10 * _memory.GIB, []) is None
    text = _memory.shortage(2 * _memory.GIB, 78 * _memory.GIB, [("vllm", 40 * _memory.GIB)])
    assert text is not None
    for part in ("expected 78.0 GiB", "seen 2.0 GiB", "vllm 40.0 GiB", "gpu-memory-utilization"):
        assert part in text


OLD, OTHER = "1:memory:/docker/4f1c\n0::/docker/4f1c\n", "0::/user.slice\n"


def test_holders_count_what_a_process_cannot_give_back(proc):
    (proc / "7" / "cgroup").write_text(OLD)
    (proc / "7" / "smaps_rollup").write_text(
        "Rss: 9000 kB\nPss: 8000 kB\nPss_Anon:  5000 kB\nPss_File: 3000 kB\n"
    )
    (proc / "9" / "cgroup").write_text(OTHER)  # no smaps_rollup: it has gone meanwhile
    assert _memory.holders(proc) == {7: (OLD, 5000 * 1024)}


def test_the_ceiling_is_all_but_what_others_hold():
    held = {7: (OLD, 60), 8: (OLD, 5), 9: (OTHER, 20), 10: (OTHER, 1)}
    assert _memory.ceiling(100, held, leaving=7) == 79
    assert _memory.ceiling(100, held, leaving=None) == 14


def test_the_ceiling_rules_nothing_out_where_it_cannot_tell_who_leaves():
    assert _memory.ceiling(100, {9: (OTHER, 20)}, leaving=7) == 100, "its main process has gone meanwhile"
    assert _memory.ceiling(100, {7: ("0::/\n", 60), 9: ("0::/\n", 20)}, leaving=7) == 100, "no control groups"


def test_what_is_out_of_reach_says_so_and_that_nothing_was_stopped():
    assert _memory.out_of_reach(78 * _memory.GIB, 78 * _memory.GIB, []) is None
    text = _memory.out_of_reach(70 * _memory.GIB, 78 * _memory.GIB, [("java", 40 * _memory.GIB)])
    assert text is not None
    for part in ("expected 78.0 GiB", "70.0 GiB at most", "java 40.0 GiB", "nothing was stopped"):
        assert part in text
