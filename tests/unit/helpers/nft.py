"""nft: that of this machine, else the copy that the lab unpacks (molecule/lab/unpacked.sh)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from helpers.recipe import ROOT
from helpers.whole import needs

NFT = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:{ROOT}/.cache/lab/nftables")
needs_nft = needs("" if NFT else "no nft here: install the distribution's nftables, or make .unpacked")


def programs(folder: Path) -> Path:
    """A folder for a PATH of its own, with nft and nothing else."""
    folder.mkdir()
    (folder / "nft").symlink_to(str(NFT))
    return folder
