"""Tests that need something of the machine: skipped where it lacks that, but not in a run that is to be whole."""

from __future__ import annotations

import os

import pytest

WHOLE = bool(os.environ.get("WHOLE"))
"""make test sets it, and sees to it that everything is there."""


def needs(lacking: str) -> pytest.MarkDecorator:
    """:param lacking: what is missing here; empty if nothing is"""
    return pytest.mark.skipif(lacking != "" and not WHOLE, reason=lacking)
