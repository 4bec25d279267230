"""Unit tests run with plain pytest: the checkout is linked into .cache/collections as a collection."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / ".cache" / "collections"
sys.path.insert(0, str(COLLECTIONS))
sys.path.insert(0, str(ROOT / "tests" / "unit"))
sys.path.insert(0, str(ROOT / "tools"))

# Pytest looks for its hooks here.
from helpers.together import pytest_xdist_make_scheduler

__all__ = ["COLLECTIONS", "ROOT", "pytest_xdist_make_scheduler"]
