"""Shards and metadata: other readers see what was written, whole shards appear at once, and elements lie where they are."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr.io import parse_url  # type: ignore[import-untyped]
from ome_zarr.reader import Reader  # type: ignore[import-untyped]
from ome_zarr_models.v05 import Image, ImageLabel, Labels

from simexm.geometry.grid import Triple, exact3
from simexm.store.files import Files
from simexm.store.omexml import Series, collection_xml
from simexm.store.omezarr import (
    ShardedArray,
    image_attributes,
    label_attributes,
    labels_group_attributes,
    multiscales,
    write_group,
)
from simexm.store.pyramid import plan_levels
from simexm.store.shards import encode_shard


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "scratch").mkdir()
    return Files(tmp_path / "x.zarr", tmp_path / "scratch")


def _tensorstore(path: Path) -> np.ndarray:
    return (
        tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}).result().read().result()
    )


def _files(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint64", "float32"])
@pytest.mark.parametrize("shape", [(40, 70, 33), (1, 5, 64), (32, 32, 32)])
def test_shards_read_back_in_zarr_and_tensorstore(files: Files, dtype: str, shape: Triple) -> None:
    a = (np.random.default_rng(1).random(shape) * 250).astype(dtype)
    a[:8, :16] = 0
    array = ShardedArray(files, "0", shape, (16, 32, 32), (8, 16, 32), dtype, "zyx")
    write_group(files, "", {})
    array.create()
    array.write_region((0, 0, 0), a)
    np.testing.assert_array_equal(array.open()[...], a)
    np.testing.assert_array_equal(_tensorstore(files.root / "0"), a)
    assert array.open().metadata.to_dict()["dimension_names"] == ("z", "y", "x")


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_a_shard_is_a_function_of_its_elements(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 3, (12, 32, 30), dtype=np.uint16) * rng.integers(0, 2, dtype=np.uint16)
    views = [a, np.asfortranarray(a), a.astype(">u2"), np.pad(a, 2)[2:-2, 2:-2, 2:-2]]
    encoded = {encode_shard(v, (16, 32, 32), (8, 16, 16)) for v in views}
    assert len(encoded) == 1
    assert (encoded == {b""}) == (not a.any())


def test_regions_in_any_order_leave_the_same_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    a = rng.integers(0, 9, (2, 50, 40, 40), dtype=np.uint16)
    a[:, 16:32] = 0
    trees = []
    for name in "ab":
        (tmp_path / name / "scratch").mkdir(parents=True)
        array = ShardedArray(
            Files(tmp_path / name / "x.zarr", tmp_path / name / "scratch"),
            "0",
            a.shape,
            (1, 16, 32, 32),
            (1, 16, 16, 16),
            "uint16",
            "czyx",
        )
        array.create()
        if name == "a":
            array.write_region((0, 0, 0, 0), a)
        else:
            for z in (48, 0, 16, 32):
                for c in (1, 0):
                    array.write_region((c, z, 0, 0), a[c : c + 1, z : z + 16])
        root = array.files.root
        trees.append({key: (root / key).read_bytes() for key in _files(root)})
    assert trees[0] == trees[1]
    assert not any("/c/0/1/" in key for key in trees[0])


def test_a_shard_that_became_empty_leaves_what_a_first_run_would(files: Files) -> None:
    array = ShardedArray(files, "0", (8, 8, 8), (8, 8, 8), (8, 8, 8), "uint16", "zyx")
    array.create()
    before = _files(files.root)
    empty = array.write((0, 0, 0), np.zeros((8, 8, 8), np.uint16))
    stored = array.write((0, 0, 0), np.ones((8, 8, 8), np.uint16))
    assert stored.nbytes == (files.root / "0/c/0/0/0").stat().st_size
    assert array.write((0, 0, 0), np.ones((8, 8, 8), np.uint16)) == stored
    assert array.write((0, 0, 0), np.zeros((8, 8, 8), np.uint16)) == empty
    assert _files(files.root) == before
    assert empty.nbytes == 0


def test_negative_zero_is_no_fill_value(files: Files) -> None:
    assert encode_shard(np.full((2, 2, 2), -0.0, np.float32), (2, 2, 2), (2, 2, 2)) != b""


def test_a_write_that_fails_keeps_the_former_shard_and_no_leftover(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = ShardedArray(files, "0", (8, 8, 8), (8, 8, 8), (8, 8, 8), "uint16", "zyx")
    array.create()
    array.write((0, 0, 0), np.ones((8, 8, 8), np.uint16))
    before = (files.root / "0/c/0/0/0").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        array.write((0, 0, 0), np.full((8, 8, 8), 7, np.uint16))
    assert (files.root / "0/c/0/0/0").read_bytes() == before
    assert not list(files.scratch.iterdir())


def test_a_part_of_a_shard_is_refused(files: Files) -> None:
    array = ShardedArray(files, "0", (8, 8, 8), (4, 8, 8), (4, 4, 4), "uint16", "zyx")
    for data in (np.ones((4, 8, 7), np.uint16), np.ones((4, 8, 8), np.uint8)):
        with pytest.raises(ValueError, match="holds"):
            array.write((0, 0, 0), data)
    with pytest.raises(ValueError, match="begins"):
        array.write_region((2, 0, 0), np.ones((4, 8, 8), np.uint16))


def test_groups_validate_and_open_without_a_warning(files: Files) -> None:
    levels = plan_levels((9, 20, 30), exact3((125, "40.625", "40.625")))  # type: ignore[arg-type]
    origin = exact3((1000, 0, 50))
    write_group(files, "", image_attributes(multiscales("x", levels, origin, channels=True, method="mean")))
    write_group(files, "labels", labels_group_attributes(["cells"]))
    scales = multiscales("cells", levels, origin, channels=False, method="mode")
    write_group(files, "labels/cells", label_attributes(scales, image="../../"))
    for n, level in enumerate(levels):
        ShardedArray(files, f"{n}", (2, *level.shape), (1, 16, 32, 32), (1, 16, 16, 16), "uint16", "czyx").create()
        ShardedArray(files, f"labels/cells/{n}", level.shape, (16, 32, 32), (16, 16, 16), "uint64", "zyx").create()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = Image.from_zarr(zarr.open_group(files.root, mode="r"))
        Labels.from_zarr(zarr.open_group(files.root / "labels", mode="r"))
        ImageLabel.from_zarr(zarr.open_group(files.root / "labels/cells", mode="r"))
        location = parse_url(files.root)
        assert location is not None
        nodes = list(Reader(location)())
    assert [d.shape for d in nodes[0].data] == [(2, *level.shape) for level in levels]
    for dataset, level in zip(image.attributes.ome.multiscales[0].datasets, levels, strict=True):
        scale, translation = cast(Any, dataset.coordinateTransformations)
        assert scale.scale == [1.0, *(float(s / 1000) for s in level.spacing)]
        # In micrometres, the centre of the level's first element.
        centre = [float((o + s / 2) / 1000) for o, s in zip(origin, level.spacing, strict=True)]
        assert translation.translation == [0.0, *centre]


def test_names_with_control_characters_stay_readable_xml() -> None:
    pixel = (0.1, 0.05, 0.05)
    told = collection_xml([Series("round_01", 'a\x1b<&"', (2, 3, 4), "uint64", pixel, (("\x00c", "FF0000"),))])
    (image,) = ElementTree.fromstring(told)
    assert image.get("Name") == 'a\ufffd<&"'
    assert image[0].get("Type") == "double"
    assert image[0][0].get("Name") == "\ufffdc"
