"""Requirements with hashes: what is one, and what a directory of wheels makes of them."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import pinned

HASH = "a" * 64


def test_a_line_for_each_distribution_with_all_its_wheels() -> None:
    wheels = {
        "huggingface_hub-2.4.0-py3-none-any.whl": "a" * 64,
        "libtorrent-2.1.1-1-cp312-cp312-manylinux_2_28_aarch64.whl": "c" * 64,
        "libtorrent-2.1.1-cp311-cp311-manylinux_2_28_aarch64.whl": "b" * 64,
        "torch-2.14.0+cpu-cp312-cp312-linux_aarch64.whl": "d" * 64,
    }
    lines = pinned.of_wheels(wheels)
    assert lines == [
        f"huggingface-hub==2.4.0 --hash=sha256:{'a' * 64}",
        f"libtorrent==2.1.1 --hash=sha256:{'b' * 64} --hash=sha256:{'c' * 64}",
        f"torch==2.14.0+cpu --hash=sha256:{'d' * 64}",
    ]
    assert pinned.names(lines) == {"huggingface-hub", "libtorrent", "torch"}


@pytest.mark.parametrize(
    "file", ["x.tar.gz", "x-1.whl", "x-1 --pre-py3-none-any.whl", "x-1\n-py3-none-any.whl", "-e-1-a-b-c.whl"]
)
def test_what_is_no_wheel_is_named(file: str) -> None:
    with pytest.raises(ValueError, match="expected the name of a wheel"):
        pinned.of_wheels({file: HASH})


@pytest.mark.parametrize(
    "line",
    [
        "docker==7.2.0",
        f"docker>=7 --hash=sha256:{HASH}",
        f"docker==7.2.0 --hash=md5:{'a' * 32}",
        f"docker==7.2.0 --hash=sha256:{HASH} --index-url http://x",
        f"docker @ http://x/y.whl --hash=sha256:{HASH}",
        f"docker==7.2.0 --hash=sha256:{HASH}\n-r /etc/passwd",
        f"-r x --hash=sha256:{HASH}",
    ],
)
def test_a_line_that_lets_anything_else_in_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="and nothing else"):
        pinned.names([line])


def test_a_marker_may_stand_before_the_hashes() -> None:
    line = f"tomli==2.5.0 ; python_full_version < '3.11' and sys_platform != 'win32' --hash=sha256:{HASH}"
    assert pinned.names([line]) == {"tomli"}
