"""The range of ports that the kernel gives away. What is asked of nft itself is tested with the module."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import nftables


def test_the_range_of_this_kernel_is_one() -> None:
    first, last = nftables.port_range()
    assert 0 < first <= last < 65536


@pytest.mark.parametrize(
    "text", [None, "", "1024", "x y", "60999 32768", "0 1", "1 65536", "1 2 3", "9" * 200]
)
def test_what_is_no_range_is_refused(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "range"
    monkeypatch.setattr(nftables, "PORT_RANGE", path)
    if text is not None:
        path.write_text(text)
    with pytest.raises(
        nftables.NftError, match="expected two ports in .*, seen: .*; do: sysctl net.ipv4.ip_local_port_range"
    ):
        nftables.port_range()
