"""Programs of Prometheus: those of this machine, else the copy that the lab unpacks (molecule/lab/unpacked.sh)."""

from __future__ import annotations

import os
import shutil

from helpers.recipe import ROOT
from helpers.whole import needs

PATH = f"{os.environ.get('PATH', '')}:{ROOT}/.cache/lab/prometheus:{ROOT}/.cache/lab/alertmanager"
PROMTOOL, AMTOOL = (shutil.which(name, path=PATH) for name in ("promtool", "amtool"))
needs_promtool = needs(
    "" if PROMTOOL and AMTOOL else "no promtool here: install the distribution's, or make .unpacked"
)
