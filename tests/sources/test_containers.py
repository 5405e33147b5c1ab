"""HDF5, N5, precomputed and Zarr keep ids, axes, voxel size and place; x y z is never taken for z y x."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
import tensorstore as ts
import zarr
from numpy.typing import NDArray

from simexm.errors import SourceError, SourceNotFoundError, SpecError
from simexm.geometry.grid import Box, exact3
from simexm.ingestion.ingest import ingest
from simexm.sources.base import open_source
from simexm.sources.opening import open_stack
from tests.sources.volumes import SHAPE, ids, whole

BIG = ids("uint64")


def _hdf5(path: Path, a: NDArray[Any] = BIG) -> Path:
    with h5py.File(path / "sample.hdf", "w") as file:
        data = file.create_dataset("volumes/labels/neuron_ids", data=a, chunks=(2, 7, 8), compression="gzip")
        data.attrs["resolution"] = (40.0, 4.0, 3.5)
        data.attrs["offset"] = (80.0, 0.0, 7.0)
        clefts = file.create_dataset("volumes/labels/clefts", data=(a > 2**62).astype(np.uint8))
        clefts.attrs["resolution"] = (40.0, 4.0, 3.5)
        file.create_dataset("volumes/raw", data=np.zeros(a.shape, np.uint8))
    return path / "sample.hdf"


def _n5(path: Path, a: NDArray[Any] = BIG, inside: str = "labels/s0", **more: Any) -> Path:
    z, y, x = a.shape
    metadata = {
        "dataType": a.dtype.name, "dimensions": [x, y, z], "blockSize": [8, 7, 2], "compression": {"type": "gzip"}, **more
    }  # fmt: skip
    kvstore = {"driver": "file", "path": str(path / "x.n5" / inside)}
    ts.open({"driver": "n5", "kvstore": kvstore, "metadata": metadata, "create": True}).result()[...] = a.T
    (path / "x.n5" / "attributes.json").write_text(json.dumps({"n5": "2.5.1"}))
    return path / "x.n5"


def _n5_resolution(path: Path) -> Path:
    return _n5(path, resolution=[3.5, 4, 40], units=["nm", "nm", "nm"], offset=[7, 0, 80])


def _n5_group(path: Path) -> Path:
    """Voxel size in um in the group, as n5-viewer has it."""
    _n5(path)
    text: dict[str, Any] = {"pixelResolution": {"dimensions": [0.0035, 0.004, 0.04], "unit": "um"}}
    text["offset"] = [0.007, 0, 0.08]
    (path / "x.n5/labels/attributes.json").write_text(json.dumps(text))
    return path / "x.n5"


def _n5_zyx(path: Path) -> Path:
    """An N5 whose attributes say that its first axis is z."""
    a = BIG
    metadata = {"dataType": "uint64", "dimensions": a.shape, "blockSize": [2, 7, 8], "compression": {"type": "raw"}}
    metadata |= {"axes": ["z", "y", "x"], "units": ["nm"] * 3, "resolution": [40, 4, 3.5], "offset": [80, 0, 7]}
    kvstore = {"driver": "file", "path": str(path / "x.n5")}
    ts.open({"driver": "n5", "kvstore": kvstore, "metadata": metadata, "create": True}).result()[...] = a
    return path / "x.n5"


def _precomputed(path: Path, encoding: str = "compressed_segmentation", **more: Any) -> Path:
    z, y, x = BIG.shape
    scale = {"size": [x, y, z], "chunk_size": [8, 7, 2], "encoding": encoding, "resolution": [3.5, 4, 40], **more}
    if encoding == "compressed_segmentation":
        scale["compressed_segmentation_block_size"] = [8, 8, 8]
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(path / "seg")},
        "multiscale_metadata": {"type": "segmentation", "data_type": "uint64", "num_channels": 1},
        "scale_metadata": {**scale, "voxel_offset": [2, 0, 2]},
        "create": True,
    }
    ts.open(spec).result()[...] = BIG.T[..., None]
    return path / "seg"


def _sharded(path: Path) -> Path:
    sharding = {
        "@type": "neuroglancer_uint64_sharded_v1", "hash": "identity", "preshift_bits": 0, "minishard_bits": 1, "shard_bits": 1,
        "data_encoding": "gzip", "minishard_index_encoding": "gzip",
    }  # fmt: skip
    return _precomputed(path, "raw", sharding=sharding)


def _zarr(path: Path) -> Path:
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    transforms = [{"type": "scale", "scale": [40, 4, 3.5]}, {"type": "translation", "translation": [100, 2, 8.75]}]
    scales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}]}]
    group = zarr.create_group(path / "x.zarr", zarr_format=2, attributes={"multiscales": scales})
    group.create_array("0", shape=SHAPE, dtype="uint64", chunks=(2, 7, 8))[...] = BIG
    return path / "x.zarr"


KINDS: dict[str, Callable[[Path], Path]] = {
    "HDF5": _hdf5,
    "N5": _n5_resolution,
    "N5 with sizes in its group": _n5_group,
    "N5 of axes z y x": _n5_zyx,
    "precomputed compressed_segmentation": _precomputed,
    "precomputed raw": lambda p: _precomputed(p, "raw"),
    "precomputed sharded": _sharded,
    "Zarr": _zarr,
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_ids_axes_size_and_place(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    box = Box((1, 5, 3), (5, 13, 22))
    result = ingest(path, tmp_path / "a.zarr", roi=box.slices)
    source = open_source(tmp_path / "a.zarr")
    np.testing.assert_array_equal(source.read(Box.of_shape(source.shape)), BIG[box.slices])
    assert (source.dtype, result.largest_id) == (np.dtype("u8"), BIG[box.slices].max())
    assert source.voxel_size_nm == exact3((40, 4, 3.5))
    assert source.origin_nm == exact3((80 + 40, 5 * 4, 7 + 3 * 3.5))


@pytest.mark.parametrize("make", [_hdf5, _zarr, _precomputed, _n5_zyx])
def test_a_given_voxel_size_overrides_size_and_place(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    ingest(make(tmp_path), tmp_path / "a.zarr", (30, 8, 7), roi="2:,:,:")
    source = open_source(tmp_path / "a.zarr")
    assert source.voxel_size_nm == exact3((30, 8, 7))
    assert source.origin_nm == exact3((60, 0, 0))


@pytest.mark.parametrize("make", [_n5, _hdf5])
def test_data_sets_are_chosen_by_name(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    if path.suffix == ".n5":
        _n5(tmp_path, (BIG // 2), "other/one")
        with pytest.raises(SourceError, match=r"2 data sets \(labels/s0, other/one\).*--dataset"):
            open_stack(str(path))
        np.testing.assert_array_equal(whole(open_stack(str(path), dataset="other")), BIG // 2)
        np.testing.assert_array_equal(whole(open_stack(str(path / "other/one"))), BIG // 2)
        missing = "labels/s0"
    else:
        expected = (BIG > 2**62).astype(np.uint8)
        np.testing.assert_array_equal(whole(open_stack(str(path), dataset="volumes/labels/clefts")), expected)
        np.testing.assert_array_equal(whole(open_stack(f"{path}/volumes/labels/clefts")), expected)
        missing = "volumes/labels/clefts"
    with pytest.raises(SourceNotFoundError, match=missing):
        open_stack(str(path), dataset="nothing/here")


def test_hdf5_of_another_layout(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["main"] = BIG
        file["table"] = np.zeros((4, 2))
    np.testing.assert_array_equal(whole(open_stack(str(tmp_path / "a.h5"))), BIG)
    with pytest.raises(SpecError, match="--voxel-size"):
        ingest(tmp_path / "a.h5", tmp_path / "a.zarr")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["more"] = BIG
    with pytest.raises(SourceError, match=r"main \(5 x 14 x 23 uint64\), more .*--dataset"):
        open_stack(str(tmp_path / "a.h5"))
    with pytest.raises(SourceError, match="table is no volume"):
        open_stack(str(tmp_path / "a.h5"), dataset="table")


def test_multiscale_n5_begins_at_its_finest_scale(tmp_path: Path) -> None:
    _n5(tmp_path, BIG[::2, ::2, ::2], "labels/s1")
    np.testing.assert_array_equal(whole(open_stack(str(_n5(tmp_path)))), BIG)


def test_scales_of_precomputed(tmp_path: Path) -> None:
    path = _precomputed(tmp_path)
    np.testing.assert_array_equal(whole(open_stack(str(path), dataset="3.5_4_40")), BIG)
    np.testing.assert_array_equal(whole(open_stack(f"precomputed://{path.as_uri()}")), BIG)
    with pytest.raises(SourceError, match="cannot be read"):
        open_stack(str(path), dataset="7_8_40")


def test_a_lossy_volume_is_no_segmentation(tmp_path: Path) -> None:
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(tmp_path / "image")},
        "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 1},
        "scale_metadata": {"size": [8, 8, 8], "chunk_size": [8, 8, 8], "encoding": "jpeg", "resolution": [4, 4, 40]},
        "create": True,
    }
    ts.open(spec).result()[...] = 5
    with pytest.raises(SourceError, match="JPEG, which changes values"):
        open_stack(str(tmp_path / "image"))


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _cut_chunk(root: Path) -> None:
    chunk = next(p for p in sorted(root.rglob("*")) if p.is_file() and p.name not in ("info", "attributes.json"))
    chunk.write_bytes(b"\1\2")


@pytest.mark.parametrize(
    ("make", "spoil", "message"),
    [
        (_hdf5, _cut, r"sample\.hdf is damaged or cut off"),
        (_n5, _cut_chunk, r"x\.n5/labels/s0: voxels .* cannot be read"),
        (_precomputed, _cut_chunk, r"seg: voxels .* cannot be read"),
        (_n5, lambda p: (p / "labels/s0/attributes.json").write_text("{"), r"attributes\.json cannot be read"),
        (_n5, lambda p: (p / "labels/s0/attributes.json").write_text("{}"), "no N5 data set"),
    ],
    ids=["HDF5", "N5", "precomputed", "N5 metadata", "N5 without data"],
)
def test_damage_is_named(
    tmp_path: Path, make: Callable[[Path], Path], spoil: Callable[[Path], Any], message: str
) -> None:
    path = make(tmp_path)
    spoil(path)
    with pytest.raises(SourceError, match=message):
        ingest(path, tmp_path / "a.zarr", (40, 4, 4))
    assert not (tmp_path / "a.zarr").exists()


def test_what_are_no_ids(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"0\.5 is no id"):
        ingest(_hdf5(tmp_path, np.full(SHAPE, 0.5, np.float32)), tmp_path / "a.zarr")
    a = np.ones(SHAPE, np.int64)
    a[3, 2, 1] = -4
    with pytest.raises(SourceError, match=r"neuron_ids, z = 3: the negative id -4"):
        ingest(_hdf5(tmp_path, a), tmp_path / "a.zarr")


@pytest.mark.parametrize(("make", "module"), [(_hdf5, "h5py"), (_n5, "tensorstore"), (_precomputed, "tensorstore")])
def test_a_missing_library_says_what_to_install(
    tmp_path: Path, make: Callable[[Path], Path], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=r'pip install "simexm\[io\]"'):
        open_stack(str(path))


@pytest.mark.parametrize("make", [_hdf5, _n5, _precomputed])
def test_as_a_source_of_a_spec_it_says_what_to_type(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    with pytest.raises(SourceError, match=rf"simexm ingest {path} -o {path.stem}\.zarr, then"):
        open_source(path)


def test_data_sets_of_what_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(SpecError, match="Leave it out"):
        open_stack(str(tmp_path / "a.tif"), dataset="labels")
