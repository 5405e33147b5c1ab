"""A 404 is a chunk of zeros only while the array is there: labels in a store that vanish, or change, are noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from simexm.errors import RunError, SourceError, SourceGoneError
from simexm.geometry.grid import Box
from simexm.ingestion.ingest import ingest
from simexm.result.place import Place
from simexm.run import folders
from simexm.run.same_source import SameSource
from simexm.sources.base import ZarrSource, open_source
from simexm.store.remote import Remote
from tests.run.conftest import VOXEL_NM
from tests.storage.conftest import SHAPE, contents, simulation

BOX = Box.of_shape(SHAPE)


def _upload(files: dict[str, bytes], there: Remote) -> None:
    for name, data in files.items():
        (there / name).put(data)


@pytest.mark.parametrize("form", ["ingested", "ingested, alone", "plain", "plain, dots"])
def test_a_prefix_that_is_gone_is_not_zeros(
    labels: tuple[Path, Remote], bucket: Remote, tmp_path: Path, form: str
) -> None:
    local = labels[0]
    if form.startswith("plain"):
        encoding: Any = {"name": "default", "separator": "." if "dots" in form else "/"}
        array = zarr.create_array(
            tmp_path / "a", shape=SHAPE, dtype="uint64", chunks=(16, 16, 16), chunk_key_encoding=encoding
        )
        array[:, 16:] = zarr.open_array(labels[0] / "0", mode="r")[:, 16:]
        local = tmp_path / "a"
    elif form == "ingested, alone":
        local = labels[0] / "0"
    files, there = contents(local), bucket / "deep/labels.zarr"
    _upload(files, there)
    source = ZarrSource(path=str(there), voxel_size_nm=VOXEL_NM).open()
    here = ZarrSource(path=str(local), voxel_size_nm=VOXEL_NM).open()
    before, _ = source.state(BOX, ())[""], source.read(Box((0, 0, 0), (1, 1, 1)))
    again = ZarrSource(path=str(there), voxel_size_nm=VOXEL_NM).open()
    assert again.state(BOX, ())[""] == before
    assert (before.files, before.names) == (here.state(BOX, ())[""].files, here.state(BOX, ())[""].names)
    there.remove_tree()
    for box in (BOX, Box((0, 0, 0), (4, 4, 4))):
        with pytest.raises(SourceGoneError, match="is gone"):
            again.read(box)
    with pytest.raises(SourceError):
        again.state(BOX, ())
    _upload(files, there)
    np.testing.assert_array_equal(again.read(BOX), here.read(BOX))


def test_a_shard_that_ingest_wrote_must_be_there(labels: tuple[Path, Remote], bucket: Remote) -> None:
    files = contents(labels[0])
    del files["0/c/0/0/0"], files["synapse/0/c/0/0/0"]
    _upload(files, bucket / "labels.zarr")
    source = open_source(f"{bucket}/labels.zarr")
    for read in (lambda: source.read(BOX), lambda: source.read_field("synapse", BOX)):
        with pytest.raises(SourceError, match="was written, but is not there any more"):
            read()


def test_a_run_notices_what_changed_in_a_store(labels: tuple[Path, Remote], bucket: Remote, tmp_path: Path) -> None:
    """By size and version; a copy elsewhere is the same."""
    files, there = contents(labels[0]), bucket / "labels.zarr"
    _upload(files, there)
    plan, where = simulation(there).plan(), Place.at(tmp_path / "out.zarr").claimed()
    folders.prepare(plan, where)
    begun = SameSource.begin(plan, where)
    begun.end()
    _upload(files, bucket / "copy.zarr")
    SameSource.begin(simulation(bucket / "copy.zarr").plan(), where).end()
    shard = there / "synapse/0/c/0/0/0"
    shard.put(shard.read_bytes()[::-1])
    with pytest.raises(RunError, match=r"were changed.*--overwrite"):
        begun.end()


def test_a_bucket_may_vanish_while_ingest_reads_it(labels: tuple[Path, Remote], bucket: Remote, tmp_path: Path) -> None:
    _upload(contents(labels[0]), bucket / "labels.zarr")

    def vanish(done: int, total: int) -> None:
        (bucket / "labels.zarr").remove_tree()

    with pytest.raises(SourceGoneError):
        ingest(f"{bucket}/labels.zarr", tmp_path / "a.zarr", progress=vanish)
    assert not list(tmp_path.iterdir())
