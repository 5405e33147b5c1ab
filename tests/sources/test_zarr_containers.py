"""Zarr as it is packed, described and split: ZIP files, consolidated metadata, bioformats2raw, shards of others, absurd arrays."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec

from simexm.errors import SimexmWarning, SourceError, SourceNotFoundError, SpecError
from simexm.grid import Box, exact3
from simexm.sources.base import ZarrSource, open_source
from simexm.sources.ingest import ingest
from simexm.sources.kinds import kind_of
from simexm.sources.opening import open_stack
from simexm.sources.words import COMMAND, speaking
from tests.sources.containers import A, n5, precomputed, zarr_array
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
        np.testing.assert_array_equal(open_source(path).read_region("soma", BOX), (A > 2**31)[BOX.slices])
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


BOMBS: dict[str, dict[str, Any]] = {
    "Zstd": {"zarr_format": 3, "compressors": ZstdCodec()},
    "Zstd behind a checksum": {"zarr_format": 3, "compressors": [ZstdCodec(), Crc32cCodec()]},
    "gzip": {"zarr_format": 3, "compressors": GzipCodec()},
    "Blosc": {"zarr_format": 3, "compressors": BloscCodec()},
    "Zstd, v2": {"zarr_format": 2, "compressors": numcodecs.Zstd()},
    "LZ4, v2": {"zarr_format": 2, "compressors": numcodecs.LZ4()},
    "gzip, v2": {"zarr_format": 2, "compressors": numcodecs.GZip()},
    "a shard": {"zarr_format": 3, "shards": (8, 8, 8)},
}


@pytest.mark.parametrize("how", BOMBS.values(), ids=BOMBS)
def test_a_chunk_that_would_fill_the_memory_is_not_decoded(tmp_path: Path, how: dict[str, Any]) -> None:
    """Its metadata say 512 bytes, and it holds 4 MiB."""
    made = {**how, **({"shards": (256, 256, 256)} if "shards" in how else {})}
    bomb = np.zeros((160,) * 3, np.uint8)
    bomb[0, 0, 0] = 1
    array = zarr.create_array(
        tmp_path / "a", shape=bomb.shape, chunks=(128,) * 3 if "shards" in how else bomb.shape, dtype="u1", **made
    )
    array[...] = bomb
    if array.shards:
        sharding = json.loads((tmp_path / "a/zarr.json").read_text())["codecs"]
        sharding[0]["configuration"]["chunk_shape"] = [4, 4, 4]
        _edit(tmp_path / "a", shape=[8] * 3, codecs=sharding, **_grid(8, 8, 8))
    elif array.metadata.zarr_format == 2:
        _edit(tmp_path / "a", shape=[8] * 3, chunks=[8] * 3)
    else:
        _edit(tmp_path / "a", shape=[8] * 3, **_grid(8, 8, 8))
    source = ZarrSource(path=str(tmp_path / "a"), voxel_size_nm=NM).open()
    tracemalloc.start()
    with pytest.raises(SourceError, match="would decode to"):
        source.read(Box.of_shape(source.shape))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def _edit(path: Path, **changes: Any) -> None:
    file = path / (".zarray" if (path / ".zarray").exists() else "zarr.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _grid(*chunk: float) -> dict[str, Any]:
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}}}


ABSURD: dict[str, tuple[int, Callable[[Path], Any]]] = {
    "10^12 chunks": (2, lambda p: _edit(p, shape=[10**4] * 3, chunks=[1, 1, 1])),
    "10^18 chunks": (3, lambda p: _edit(p, shape=[10**6] * 3, **_grid(1, 1, 1))),
    "zero chunk": (2, lambda p: _edit(p, chunks=[0, 7, 8])),
    "zero chunk, v3": (3, lambda p: _edit(p, **_grid(0, 7, 8))),
    "negative shape": (2, lambda p: _edit(p, shape=[-5, 14, 23])),
    "fractions": (3, lambda p: _edit(p, shape=[5.5, 14, 23])),
    "fractions of chunks": (2, lambda p: _edit(p, chunks=[2.5, 7, 8])),
    "a chunk of 4 EB": (2, lambda p: _edit(p, chunks=[10**6] * 3)),
    "no numbers": (2, lambda p: _edit(p, shape="many")),
    "other dimensions": (2, lambda p: _edit(p, chunks=[2, 7])),
    "unknown codec": (2, lambda p: _edit(p, compressor={"id": "mine"})),
    "unknown codec, v3": (3, lambda p: _edit(p, codecs=[{"name": "mine"}])),
    "attributes in a list": (3, lambda p: _edit(p, attributes=[1])),
    "nested deep": (3, lambda p: (p / "zarr.json").write_text("[" * 10**5)),
    "attributes nested deep": (2, lambda p: (p / ".zattrs").write_text('{"a":' * 10**5)),
    "an integer of 6000 digits": (2, lambda p: (p / ".zarray").write_text('{"shape": [' + "9" * 6000)),
    "metadata of 65 MB": (3, lambda p: (p / "zarr.json").open("wb").truncate(65 * 2**20)),
}  # fmt: skip


@pytest.mark.parametrize(("zarr_format", "spoil"), ABSURD.values(), ids=ABSURD)
def test_absurd_metadata_are_refused_in_one_message(
    tmp_path: Path, zarr_format: Any, spoil: Callable[[Path], Any]
) -> None:
    path = zarr_array(tmp_path / "a", zarr_format=zarr_format)
    spoil(path)
    for open_ in (lambda: ZarrSource(path=str(path), voxel_size_nm=NM).open(), lambda: open_stack(str(path))):
        with pytest.raises(SourceError) as caught:
            open_()
        assert str(path) in str(caught.value)
        assert "no zarr.json" not in str(caught.value)
        assert len(str(caught.value)) < 600


N5_ATTRIBUTES, PROPERTIES = "lab/attributes.json", "datasource-properties.json"
DEEP = "[" * 10**5


def _n5(path: Path) -> Path:
    return n5(path, "lab", {"transform": {"axes": ["z", "y", "x"], "scale": [40, 8, 4]}})


def _with(file: str, **changes: Any) -> Callable[[Path], Any]:
    return lambda p: (p / file).write_text(json.dumps({**json.loads((p / file).read_text()), **changes}))


def _scale(**changes: Any) -> Callable[[Path], Any]:
    def edit(path: Path) -> None:
        info = json.loads((path / "info").read_text())
        info["scales"][0].update(changes)
        (path / "info").write_text(json.dumps(info))

    return edit


def _layer(**changes: Any) -> Callable[[Path], Any]:
    box = {"topLeft": [0, 0, 0], "width": 8, "height": 8, "depth": 8}
    layer = {"name": "seg", "category": "segmentation", "boundingBox": box, "mags": [{"mag": 1}], **changes}

    def write(path: Path) -> None:
        (path / "seg/1").mkdir(parents=True)
        (path / "seg/1/header.wkw").write_bytes(b"WKW\x01\x13\x02\x03\x04" + bytes(8))
        (path / PROPERTIES).write_text(json.dumps({"scale": [4, 8, 40], "dataLayers": [layer]}))

    return write


OTHERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "N5, 10^18 chunks": (_n5, _with(N5_ATTRIBUTES, dimensions=[10**6] * 3, blockSize=[1, 1, 1])),
    "N5, zero chunk": (_n5, _with(N5_ATTRIBUTES, blockSize=[0, 9, 9])),
    "N5, fractions": (_n5, _with(N5_ATTRIBUTES, dimensions=[5.5, 9, 9])),
    "N5, a chunk of 1 EB": (_n5, _with(N5_ATTRIBUTES, blockSize=[10**6] * 3)),
    "N5, unknown codec": (_n5, _with(N5_ATTRIBUTES, compression={"type": "mine"})),
    "N5, nested deep": (_n5, lambda p: (p / N5_ATTRIBUTES).write_text(DEEP)),
    "N5, metadata of 65 MB": (_n5, lambda p: (p / N5_ATTRIBUTES).open("wb").truncate(65 * 2**20)),
    "N5, axes of a transform": (_n5, _with(N5_ATTRIBUTES, transform={"axes": 5, "scale": 3})),
    "precomputed, 10^18 chunks": (precomputed, _scale(size=[10**6] * 3, chunk_sizes=[[1, 1, 1]])),
    "precomputed, zero chunk": (precomputed, _scale(chunk_sizes=[[0, 1, 1]])),
    "precomputed, negative": (precomputed, _scale(size=[-1, 1, 1])),
    "precomputed, a chunk of 4 EB": (precomputed, _scale(size=[10**6] * 3, chunk_sizes=[[10**6] * 3])),
    "precomputed, no such scale": (precomputed, _scale(key="../elsewhere")),
    "precomputed, nested deep": (precomputed, lambda p: (p / "info").write_text(DEEP)),
    "WEBKNOSSOS, 10^24 chunks": (Path, _layer(boundingBox={"topLeft": [0] * 3, "width": 10**9, "height": 10**9, "depth": 10**9})),
    "WEBKNOSSOS, negative box": (Path, _layer(boundingBox={"topLeft": [-8, 0, 0], "width": 8, "height": 8, "depth": 8})),
    "WEBKNOSSOS, no magnification": (Path, _layer(mags=[{"mag": [0, 0, 0]}])),
    "WEBKNOSSOS, a name that leads out": (Path, _layer(name="../seg")),
    "WEBKNOSSOS, nested deep": (Path, lambda p: (p.mkdir(), (p / PROPERTIES).write_text(DEEP))),
}  # fmt: skip


@pytest.mark.parametrize(("make", "spoil"), OTHERS.values(), ids=OTHERS)
def test_absurd_metadata_of_other_containers_are_refused(
    tmp_path: Path, make: Any, spoil: Callable[[Path], Any]
) -> None:
    path = make(tmp_path / "a")
    spoil(path)
    with pytest.raises((SourceError, SpecError)) as caught:
        ingest(path, tmp_path / "b.zarr")
    assert str(path) in str(caught.value)
    assert "holds no labels" not in str(caught.value)
