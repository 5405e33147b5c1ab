"""A real S3 server on loopback, and one small simulation whose labels are in it and on a disk."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pytest
import tifffile

from simexm.api import Simulation
from simexm.geometry.grid import exact3
from simexm.ingestion.ingest import ingest
from simexm.store.remote import Remote
from tests.run.conftest import VOXEL_NM, cells, spec

SHAPE = (32, 48, 48)
PAGE = 100
"""Keys that a page of a listing holds; in stores 1000."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore:.*:ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(aio)?boto.*"))


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an S3 server; while it runs, this process and its children find it and its credentials."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = (tmp_path_factory.mktemp("server") / "log").open("wb")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    paged = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)}
    process = subprocess.Popen(command, stdout=log, stderr=log, env=paged)
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        del os.environ[name]
    os.environ |= {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        _wait(url, process)
        yield url
    finally:
        os.environ.clear()
        os.environ.update(before)
        fsspec.filesystem("s3").clear_instance_cache()
        process.terminate()
        process.wait()
        log.close()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/"):
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < end_s, "the server should answer by now"
            time.sleep(0.1)


@pytest.fixture
def bucket(server: str) -> Remote:
    """A bucket with nothing in it."""
    return make_bucket()


def make_bucket() -> Remote:
    """Make a bucket of a name of its own."""
    name = f"simexm-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    return Remote(f"s3://{name}")


@pytest.fixture(scope="package")
def tif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells as a TIFF stack, and a mask beside them."""
    folder = tmp_path_factory.mktemp("labels")
    ids = cells(SHAPE)
    tifffile.imwrite(folder / "cells.tif", ids, compression="zlib")
    tifffile.imwrite(folder / "synapse.tif", (ids % 3 == 0).astype(np.uint8), compression="zlib")
    return folder / "cells.tif"


@pytest.fixture(scope="package")
def labels(server: str, tif: Path) -> tuple[Path, Remote]:
    """The same labels, ingested to a disk and to the server."""
    here, there = tif.with_name("cells.zarr"), make_bucket() / "deep/cells.zarr"
    for output in (here, there):
        ingest(tif, str(output), exact3(VOXEL_NM), regions={"synapse": tif.with_name("synapse.tif")})
    return here, there


def simulation(source: Any, **changes: Any) -> Simulation:
    """The small simulation on labels somewhere, in four blocks, with all tables."""
    return Simulation.from_mapping(spec(str(source), keep=["emitters"], **{"execution": {"min_blocks": 4}, **changes}))


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder or a URL."""
    files = folder.files() if isinstance(folder, Remote) else (p for p in folder.rglob("*") if p.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
