"""One real cluster of two worker processes for a module's tests."""

from __future__ import annotations

from collections.abc import Iterator

import distributed
import pytest

from simexm.jobs.local_cluster import local_client


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    """Two workers, each of which the nanny starts again when it dies."""
    with local_client(2, dashboard=False) as client:
        yield client
