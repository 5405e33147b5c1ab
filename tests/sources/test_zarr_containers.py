"""Zarr as it is packed, described and split: ZIP files, consolidated metadata, bioformats2raw, shards of others."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec

from simexm.errors import SimexmWarning, SourceError, SourceNotFoundError
from simexm.geometry.grid import Box, exact3
from simexm.ingestion.ingest import ingest
from simexm.sources.base import ZarrSource, open_source
from simexm.sources.kinds import kind_of
from simexm.sources.opening import open_stack
from simexm.sources.words import COMMAND, speaking
from tests.sources.containers import A, zarr_array
from tests.sources.volumes import whole

NM = (40, 8, 4)
BOX = Box((1, 3, 5), (5, 13, 20))


def _scales(**more: Any) -> dict[str, Any]:
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [40, 8, 4]}]}]
    return {"multiscales": [{"version": "0.4", "axes": axes, "datasets": levels}], **more}


def _ome(path: Path, a: Any = A, **more: Any) -> Path:
    group = zarr.create_group(path, zarr_format=2, attributes=_scales(**more))
    group.create_array("0", shape=a.shape, dtype=a.dtype, chunks=(3, 7, 8))[...] = a
    return path


def _zip(folder: Path, name: str, inside: str = "") -> Path:
    with zipfile.ZipFile(folder.parent / name, "w") as file:
        for each in sorted(folder.rglob("*")):
            if each.is_file():
                file.write(each, f"{inside}{each.relative_to(folder).as_posix()}")
    return folder.parent / name


@pytest.mark.parametrize(("name", "inside"), [("a.zarr.zip", ""), ("a.ozx", ""), ("a.zip", "a.zarr/")])
def test_zip_files_are_read_by_a_spec_and_by_ingest(tmp_path: Path, name: str, inside: str) -> None:
    path = _zip(_ome(tmp_path / "a.zarr"), name, inside)
    source = open_source(path)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(BOX), A[BOX.slices])  # noqa: S301
    assert source.voxel_size_nm == exact3(NM)
    ingest(path, tmp_path / "b.zarr")
    again = open_source(tmp_path / "b.zarr")
    np.testing.assert_array_equal(again.read(Box.of_shape(again.shape)), A)
    other = A.copy()
    other[4, 13, 22] ^= 1
    changed = _zip(_ome(tmp_path / "c.zarr", other), f"c{name}", inside)
    assert open_source(changed).identity != source.identity


def test_masks_that_ingest_left_are_found_in_a_zip_file(tmp_path: Path) -> None:
    mask = zarr_array(tmp_path / "m", (A > 2**31).astype(np.uint8))
    ingest(_ome(tmp_path / "a.zarr"), tmp_path / "b.zarr", regions={"soma": mask})
    for n, inside in enumerate(("", "b.zarr/")):
        path = _zip(tmp_path / "b.zarr", f"b{n}.zip", inside)
        np.testing.assert_array_equal(open_source(path).read_field("soma", BOX), (A > 2**31)[BOX.slices])
        assert ingest(path, tmp_path / f"c{n}.zarr").regions == ("soma",)


def test_zip_files_that_are_no_zarr(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/slice.tif").write_bytes(b"II*\0")
    with pytest.raises(SourceError, match=r"without a Zarr in it.*unzip"):
        kind_of(str(_zip(tmp_path / "t", "t.zip")))
    path = _zip(_ome(tmp_path / "a.zarr"), "a.zip")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SourceError):
        open_source(path)


def test_stale_consolidated_metadata_neither_hide_nor_invent(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    old = group.create_array("old", shape=A.shape, dtype=A.dtype)
    old[...] = 1
    zarr.consolidate_metadata(tmp_path / "a.zarr")
    group.create_array("new", shape=A.shape, dtype=A.dtype)[...] = A
    np.testing.assert_array_equal(whole(open_stack(str(tmp_path / "a.zarr"), dataset="new")), A)
    (tmp_path / "a.zarr/old/.zarray").unlink()
    with pytest.raises(SourceNotFoundError, match="'old'; beside it there are: new"):
        open_stack(str(tmp_path / "a.zarr"), dataset="old")
    np.testing.assert_array_equal(whole(open_stack(str(tmp_path / "a.zarr"))), A)


def _bf2raw(path: Path, series: tuple[str, ...], listed: bool = True) -> Path:
    root = zarr.create_group(path, zarr_format=2, attributes={"bioformats2raw.layout": 3})
    root.create_group("OME", attributes={"series": list(series)} if listed else {})
    for n in series:
        _ome(path / n)
    return path


@pytest.mark.parametrize("listed", [True, False])
def test_the_only_image_of_bioformats2raw_is_taken(tmp_path: Path, listed: bool) -> None:
    assert open_source(_bf2raw(tmp_path / "a", ("0",), listed)).voxel_size_nm == exact3(NM)


def test_several_images_of_bioformats2raw_are_offered_without_its_ome_group(tmp_path: Path) -> None:
    path = str(_bf2raw(tmp_path / "a", ("0", "1")))
    with pytest.raises(SourceError, match=r"--dataset NAME, with one of 0, 1\."), speaking(COMMAND):
        open_stack(path)
    with pytest.raises(SourceError, match=r"dataset: NAME\}, with one of 0, 1\."):
        open_source(path)


def test_a_lone_volume_beside_coordinates_needs_no_name(tmp_path: Path) -> None:
    """As xarray writes it."""
    group = zarr.create_group(tmp_path / "a", zarr_format=2)
    for n, name in enumerate("zyx"):
        group.create_array(name, shape=(A.shape[n],), dtype="f8")
    zarr_array(tmp_path / "a/labels", attributes={"_ARRAY_DIMENSIONS": ["z", "y", "x"]})
    np.testing.assert_array_equal(whole(open_stack(str(tmp_path / "a"))), A)


def test_an_image_taken_for_labels_is_warned_of(tmp_path: Path) -> None:
    path = _ome(tmp_path / "a.zarr", omero={"channels": []})
    with pytest.warns(SimexmWarning, match="omero"):
        open_source(path)
    with pytest.warns(SimexmWarning, match="omero"):
        ingest(path, tmp_path / "b.zarr")
    open_source(_ome(tmp_path / "c.zarr", **{"omero": {"channels": []}, "image-label": {}}))


INDICES: dict[str, dict[str, Any]] = {
    "ours": {"index_codecs": [BytesCodec(), Crc32cCodec()]},
    "big-endian index": {"index_codecs": [BytesCodec(endian="big"), Crc32cCodec()]},
    "index without a checksum": {"index_codecs": [BytesCodec()]},
    "big-endian index without a checksum": {"index_codecs": [BytesCodec(endian="big")]},
    "index at the start": {"index_location": "start"},
    "big-endian elements": {"codecs": [BytesCodec(endian="big"), ZstdCodec()]},
    "Zstd with a checksum": {"codecs": [BytesCodec(), ZstdCodec(checksum=True)]},
    "gzip": {"codecs": [BytesCodec(), GzipCodec()]},
    "Blosc": {"codecs": [BytesCodec(), BloscCodec()]},
    "nothing": {"codecs": [BytesCodec()]},
    "chunks with checksums": {"codecs": [BytesCodec(), ZstdCodec(), Crc32cCodec()]},
}


@pytest.mark.parametrize("how", INDICES.values(), ids=INDICES)
@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_shards_of_any_writer_are_read_as_zarr_reads_them(tmp_path: Path, how: dict[str, Any], dtype: str) -> None:
    a = A.astype(dtype)
    sharding = ShardingCodec(chunk_shape=(2, 4, 8), **{"codecs": [BytesCodec(), ZstdCodec()], **how})
    array = zarr.create(
        store=str(tmp_path / "a"),
        shape=a.shape,
        dtype=dtype,
        chunks=(4, 8, 16),
        codecs=[sharding],
        fill_value=0,
        zarr_format=3,
    )
    array[...] = a
    np.testing.assert_array_equal(
        ZarrSource(path=str(tmp_path / "a"), voxel_size_nm=NM).open().read(BOX), a[BOX.slices]
    )
