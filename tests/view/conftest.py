"""What the tests of looking at results share."""

from __future__ import annotations

from collections.abc import Iterator

import distributed
import pytest

from simexm.jobs.nodes import LocalCluster, Scheduler, Worker


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    """One worker in this process, for all runs of a module."""
    inside = {"protocol": "inproc://"}
    with (
        LocalCluster(  # type: ignore[no-untyped-call]
            scheduler={"cls": Scheduler, "options": inside},
            workers={0: {"cls": Worker, "options": {**inside, "nthreads": 2}}},
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as made,  # type: ignore[no-untyped-call]
    ):
        yield made
