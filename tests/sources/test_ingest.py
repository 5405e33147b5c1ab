"""Ingest keeps every id, writes what other readers read, and leaves either the whole result or nothing."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import tifffile
import zarr
from numpy.typing import NDArray
from ome_zarr.io import parse_url  # type: ignore[import-untyped]
from ome_zarr.reader import Reader  # type: ignore[import-untyped]
from ome_zarr_models.v05 import ImageLabel

from simexm.errors import OutputError, SourceError, SourceNotFoundError, SpecError
from simexm.geometry.grid import Box, exact3
from simexm.ingestion import bands
from simexm.ingestion.ingest import ingest
from simexm.sources.base import open_source
from simexm.store.pyramid import downsample_labels

SIZE = (40, 32, 32)


def _ids(shape: tuple[int, ...] = (70, 90, 130), dtype: str = "uint32") -> NDArray[Any]:
    """Blocks of random ids, up to the largest that the type holds."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, np.iinfo(dtype).max, [-(-n // 8) for n in shape], dtype=dtype, endpoint=True)
    a = np.kron(coarse, np.ones((8,) * len(shape), dtype))[tuple(slice(n) for n in shape)]
    a.flat[:5] = 0
    return a


def _tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


WAYS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "pages": {"metadata": None},
    "big endian": {"byteorder": ">"},
    "bigtiff lzw": {"bigtiff": True, "compression": "lzw", "predictor": True},
    "deflate": {"compression": "zlib", "rowsperstrip": 7},
    "zstd tiles": {"compression": "zstd", "tile": (32, 48)},
    "packbits": {"compression": "packbits"},
    "ome": {"ome": True, "compression": "zlib", "metadata": {"axes": "ZYX"}},
}


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_that_were_appended_one_by_one_are_a_stack(tmp_path: Path, compression: str | None) -> None:
    """Each is a series of its own for readers, for nothing in the file says that they belong together."""
    a = _ids((9, 70, 65), "uint64")
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=True) as writer:
        for plane in a:
            writer.write(plane, compression=compression, contiguous=False)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE)
    np.testing.assert_array_equal(open_source(tmp_path / "a.zarr").read(Box.of_shape(a.shape)), a)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_kind_of_stack_keeps_its_ids(tmp_path: Path, way: dict[str, Any]) -> None:
    a = _ids()
    tifffile.imwrite(tmp_path / "a.tif", a, **way)
    result = ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE, workers=2)
    source = open_source(tmp_path / "a.zarr")
    np.testing.assert_array_equal(source.read(Box.of_shape(a.shape)), a)
    assert source.dtype == a.dtype
    assert (result.shape, result.dtype, result.largest_id) == (a.shape, "uint32", a.max())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint64", "int32", "bool"])
def test_every_type_of_id(tmp_path: Path, dtype: str) -> None:
    a = _ids((9, 20, 31), "uint8") > 100 if dtype == "bool" else _ids((9, 20, 31), dtype)
    if dtype == "int32":
        a = abs(a)
    tifffile.imwrite(tmp_path / "a.tif", a, compression="zlib", photometric="minisblack")
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE)
    stored = zarr.open_array(tmp_path / "a.zarr/0", mode="r")
    assert stored.dtype == np.dtype(f"u{a.dtype.itemsize}")
    np.testing.assert_array_equal(stored[...], a)


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}], ids=["uncompressed", "deflate"])
def test_a_stack_in_several_files(tmp_path: Path, how: dict[str, Any]) -> None:
    """An OME-TIFF whose planes lie in two files."""
    a = _ids((6, 20, 31), "uint16")
    parts = "".join(
        f'<TiffData IFD="{z % 3}" FirstZ="{z}" PlaneCount="1"><UUID FileName="{z // 3}.ome.tif">urn:uuid:{z // 3}</UUID></TiffData>'
        for z in range(6)
    )
    for n in range(2):
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{n}"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="31" SizeY="20" SizeZ="6" SizeC="1" SizeT="1">'
            f"{parts}</Pixels></Image></OME>"
        )
        tifffile.imwrite(
            tmp_path / f"{n}.ome.tif",
            a[3 * n : 3 * n + 3],
            description=xml,
            metadata=None,
            photometric="minisblack",
            **how,
        )
    ingest(tmp_path / "0.ome.tif", tmp_path / "a.zarr", SIZE, workers=2)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr/0", mode="r")[...], a)
    (tmp_path / "1.ome.tif").unlink()
    with pytest.raises(SourceError, match="missing"):
        ingest(tmp_path / "0.ome.tif", tmp_path / "b.zarr", SIZE)


def test_imagej_hyperstack(tmp_path: Path) -> None:
    a = _ids((9, 20, 31), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", a, imagej=True, metadata={"axes": "ZYX"})
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr/0", mode="r")[...], a)


def test_the_result_is_a_label_image_that_others_read(tmp_path: Path) -> None:
    a = _ids(dtype="uint64")
    tifffile.imwrite(tmp_path / "a.tif", a, compression="zlib")
    result = ingest(tmp_path / "a.tif", tmp_path / "a.zarr", (40, 32.5, 32.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageLabel.from_zarr(zarr.open_group(tmp_path / "a.zarr", mode="r"))
        location = parse_url(tmp_path / "a.zarr")
        assert location is not None
        node = next(iter(Reader(location)()))
    np.testing.assert_array_equal(np.asarray(node.data[0]), a)
    assert len(node.data) == result.levels
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path / "a.zarr/0")}}
    np.testing.assert_array_equal(tensorstore.open(spec).result().read().result(), a)
    source = open_source(tmp_path / "a.zarr")
    assert source.voxel_size_nm == exact3((40, 32.5, 32.5))
    assert source.origin_nm == exact3((0, 0, 0))


def test_every_level_follows_from_the_one_above(tmp_path: Path) -> None:
    a = _ids((5, 300, 1100))
    tifffile.imwrite(tmp_path / "a.tif", a, compression="zlib", rowsperstrip=33)
    result = ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE, workers=2)
    levels = [zarr.open_array(tmp_path / f"a.zarr/{n}", mode="r") for n in range(result.levels)]
    assert levels[-1].shards != levels[0].shards
    assert max(levels[-1].shape) <= 64
    for upper, lower in itertools.pairwise(levels):
        f = tuple(1 if n == 1 else 2 for n in upper.shape)
        np.testing.assert_array_equal(lower[...], downsample_labels(np.asarray(upper[...]), f))  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["contiguous", "deflate"])
def test_bands_and_threads_do_not_change_a_byte(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a = _ids((40, 260, 100))
    tifffile.imwrite(tmp_path / "a.tif", a, **WAYS[way])
    for name, workers in (("one", 1), ("three", 3)):
        ingest(tmp_path / "a.tif", tmp_path / f"{name}.zarr", SIZE, workers=workers)
    one, three = _tree(tmp_path / "one.zarr"), _tree(tmp_path / "three.zarr")
    name = "zarr.json"  # of the root, in which the result's name stands
    assert {k: v for k, v in one.items() if k != name} == {k: v for k, v in three.items() if k != name}
    # With less memory for a band the shards are smaller, and the levels that they hold the same.
    monkeypatch.setattr(bands, "_BAND_BYTES", 2**18)
    small = ingest(tmp_path / "a.tif", tmp_path / "small.zarr", SIZE, workers=2)
    for n in range(small.levels):
        arrays = [zarr.open_array(tmp_path / f"{name}.zarr/{n}", mode="r") for name in ("one", "small")]
        np.testing.assert_array_equal(arrays[0][...], arrays[1][...])


def test_progress_ends_at_the_whole_volume(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", _ids((5, 300, 40)))
    seen: list[tuple[int, int]] = []
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (5 * 300 * 40, 5 * 300 * 40)


@pytest.mark.parametrize(
    ("a", "how", "message"),
    [
        (np.zeros((5, 8, 8), np.uint8), {}, "every voxel is 0"),
        (np.full((5, 8, 8), 0.5, np.float32), {}, "no id"),
        (-np.ones((5, 8, 8), np.int16), {}, "negative id -1"),
        (np.eye(3, dtype=np.uint8)[np.ones((5, 8, 8), int)], {"photometric": "rgb"}, "in colour"),
        (np.ones((3, 5, 8, 8), np.uint8), {}, "axes"),
        (np.ones((5, 16, 16), np.uint8), {"compression": "jpeg"}, "JPEG, which changes values"),
    ],
    ids=["zeros", "float", "negative", "rgb", "4D", "JPEG"],
)
def test_what_is_no_segmentation_is_refused(tmp_path: Path, a: NDArray[Any], how: dict[str, Any], message: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", a, **how)
    with pytest.raises(SourceError, match=message):
        ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_pages_of_different_shape_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for n in (8, 9):
            writer.write(np.ones((n, n), np.uint8), metadata=None)
    with pytest.raises(SourceError, match="2 images"):
        ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, way: dict[str, Any], share: float) -> None:
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "a.tif", rng.integers(0, 2**32, (12, 64, 96), dtype=np.uint32), **way)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SourceError, match=r"page|planes would be missing|not a TIFF"):
        ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", _ids(), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        offset = tif.pages[41].dataoffsets[0]
    with open(tmp_path / "a.tif", "r+b") as f:
        f.seek(offset)
        f.write(b"\0" * 30)
    with pytest.raises(SourceError, match="page 42 of 70"):
        ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE, workers=2)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_no_file_and_no_tiff(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("this is text")
    with pytest.raises(SourceError, match="neither TIFF nor HDF5"):
        ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE)
    with pytest.raises(SourceNotFoundError):
        ingest(tmp_path / "b.tif", tmp_path / "a.zarr", SIZE)
    with pytest.raises(SpecError, match="voxel size"):
        ingest(tmp_path / "a.tif", tmp_path / "a.zarr", (40, 0, 32))


def test_only_an_earlier_ingest_is_replaced_and_only_when_asked(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", _ids((5, 8, 8)))
    tifffile.imwrite(tmp_path / "b.tif", _ids((5, 8, 9)))
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE)
    before = _tree(tmp_path / "a.zarr")
    with pytest.raises(OutputError, match="--overwrite"):
        ingest(tmp_path / "b.tif", tmp_path / "a.zarr", SIZE)
    assert _tree(tmp_path / "a.zarr") == before
    assert ingest(tmp_path / "b.tif", tmp_path / "a.zarr", SIZE, overwrite=True).shape == (5, 8, 9)
    assert open_source(tmp_path / "a.zarr").shape == (5, 8, 9)
    zarr.create_group(tmp_path / "other.zarr")
    (tmp_path / "folder").mkdir()
    for name in ("other.zarr", "folder", "b.tif"):
        with pytest.raises(OutputError, match="not replaced"):
            ingest(tmp_path / "a.tif", tmp_path / name, SIZE, overwrite=True)
    with pytest.raises(OutputError, match="cannot be written"):
        ingest(tmp_path / "a.tif", tmp_path / "nowhere" / "a.zarr", SIZE)
    assert {p.name for p in tmp_path.iterdir()} == {"a.tif", "b.tif", "a.zarr", "other.zarr", "folder"}


@pytest.mark.parametrize("added", ["mine/zarr.json", "notes.txt", "7/zarr.json", "0/notes.txt"])
def test_what_was_added_to_an_ingest_is_never_deleted(tmp_path: Path, added: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", _ids((5, 8, 8)))
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE)
    (tmp_path / "a.zarr" / added).parent.mkdir(exist_ok=True)
    (tmp_path / "a.zarr" / added).write_text("mine")
    before = _tree(tmp_path / "a.zarr")
    with pytest.raises(OutputError, match=rf"holds {added.removesuffix('/zarr.json')}, which .* would delete"):
        ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE, overwrite=True)
    assert _tree(tmp_path / "a.zarr") == before


def test_what_an_early_version_ingested_is_replaced(tmp_path: Path) -> None:
    """Its mark holds no digest."""
    tifffile.imwrite(tmp_path / "a.tif", _ids((5, 8, 8)))
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE)
    whole = _tree(tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "a.zarr").update_attributes({"simexm": {"written_by": "simexm ingest"}})
    assert open_source(tmp_path / "a.zarr").identity
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE, overwrite=True)
    assert _tree(tmp_path / "a.zarr") == whole


def test_the_digest_follows_every_id_and_nothing_else(tmp_path: Path) -> None:
    """The same ids from another file with other strips and threads: the same digest; one other id: another."""
    a = _ids((20, 300, 40))
    b = a.copy()
    b[19, 299, 39] += 1
    for name, ids, workers, how in (("a", a, 1, {}), ("again", a, 3, WAYS["deflate"]), ("b", b, 2, {})):
        tifffile.imwrite(tmp_path / f"{name}.tif", ids, **how)
        ingest(tmp_path / f"{name}.tif", tmp_path / f"{name}.zarr", SIZE, workers=workers)
    marks = {n: zarr.open_group(tmp_path / f"{n}.zarr", mode="r").attrs["simexm"] for n in ("a", "again", "b")}
    assert marks["a"] == marks["again"] != marks["b"]


def test_a_failed_replacement_keeps_the_former_result(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", _ids((5, 8, 8)))
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((5, 8, 9), np.uint8))
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE)
    before = _tree(tmp_path / "a.zarr")
    with pytest.raises(SourceError):
        ingest(tmp_path / "b.tif", tmp_path / "a.zarr", SIZE, overwrite=True)
    assert _tree(tmp_path / "a.zarr") == before


def test_a_running_or_killed_ingest_is_not_disturbed(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", _ids((5, 8, 8)))
    (tmp_path / ".a.zarr.partial").mkdir()
    with pytest.raises(OutputError, match=r"rm -r .*\.a\.zarr\.partial"):
        ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE)


@pytest.mark.data
def test_the_cortex_keeps_its_ids(tmp_path: Path, cortex_tif: Path) -> None:
    result = ingest(cortex_tif, tmp_path / "cortex.zarr", SIZE, workers=2)
    assert result.shape == (512, 512, 512)
    plane = 300
    np.testing.assert_array_equal(
        open_source(tmp_path / "cortex.zarr").read(Box((plane, 0, 0), (plane + 1, 512, 512)))[0],
        tifffile.imread(cortex_tif, key=plane),
    )
