"""One cluster of two real workers in which faults may happen, and one undisturbed run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import distributed
import pytest

from simexm.jobs.local_cluster import local_client
from simexm.result.result import Result
from tests.faults.faults import Faults, environment, simulation, write_credentials


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore:.*:ResourceWarning"))


@pytest.fixture(scope="package")
def _faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return Faults(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def faults(_faults: Faults) -> Iterator[Faults]:
    """Nothing happens yet, and nothing was noted."""
    _faults.clear()
    yield _faults
    _faults.clear()


@pytest.fixture(scope="package")
def client(_faults: Faults) -> Iterator[distributed.Client]:
    """Two workers, each of which the nanny starts again when it dies, or when it takes more than 1 GiB."""
    before = dict(os.environ)
    os.environ.update(environment(_faults.folder))
    try:
        with local_client(2, memory_limit="1 GiB", dashboard=False) as client:
            write_credentials(client.security, _faults.folder)
            yield client  # the environment stays: workers that died are started with it
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="package")
def reference(client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """An undisturbed run."""
    return simulation().run(tmp_path_factory.mktemp("reference") / "small.zarr", client=client, quiet=True)
