"""What the tests of this scenario begin with: a host that serves what passed the gate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import spark


@pytest.fixture(scope="class")
def aside() -> Iterator[None]:
    """The server that passed, out of the way and unharmed, for servers that are started by hand."""
    spark.put_aside()
    yield
    spark.bring_back()
