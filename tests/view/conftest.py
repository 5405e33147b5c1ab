"""What the tests of looking at results share."""

from __future__ import annotations

from collections.abc import Iterator

import distributed
import pytest


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    """One worker in this process, for all runs of a module."""
    with distributed.Client(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0", set_as_default=False
    ) as made:
        yield made
