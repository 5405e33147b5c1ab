"""Masks of any kind lie beside the labels, are known to whoever opens them, and are cut with them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from ome_zarr_models.v05 import ImageLabel

from simexm.cli import app
from simexm.errors import OutputError, SimexmWarning, SourceError, SpecError
from simexm.geometry.grid import Box, exact3
from simexm.ingestion.ingest import ingest
from simexm.sources.base import ZarrSource, open_source
from tests.sources.volumes import SHAPE, SIZE, ids, write_slice, write_slices

INSIDE = np.random.default_rng(4).random(SHAPE) < 0.2
WHOLE = Box.of_shape(SHAPE)


def _tiff(path: Path, mask: NDArray[Any]) -> Path:
    write_slice(path / "mask.tif", mask.astype(np.uint8) * 255)
    return path / "mask.tif"


def _float(path: Path, mask: NDArray[Any]) -> Path:
    tifffile.imwrite(path / "mask.tif", mask * np.float32(0.25))
    return path / "mask.tif"


def _negative(path: Path, mask: NDArray[Any]) -> Path:
    tifffile.imwrite(path / "mask.tif", -3 * mask.astype(np.int16))
    return path / "mask.tif"


def _slices(path: Path, mask: NDArray[Any]) -> Path:
    return write_slices(path / "mask", mask.astype(np.uint16) * 700)


def _zarr(path: Path, mask: NDArray[Any]) -> Path:
    zarr.create_array(path / "mask.zarr", shape=mask.shape, dtype="uint64")[...] = mask * np.uint64(2**63)
    return path / "mask.zarr"


def _hdf5(path: Path, mask: NDArray[Any]) -> Path:
    with h5py.File(path / "mask.h5", "w") as file:
        file["masks/synapse"], file["masks/nucleus"] = mask, ~mask
    return path / "mask.h5/masks/synapse"


MASKS: dict[str, Callable[[Path, NDArray[Any]], Path]] = {
    "TIFF": _tiff, "floats": _float, "negative": _negative, "slices": _slices, "Zarr": _zarr, "HDF5": _hdf5
}  # fmt: skip


def _labels(path: Path, **how: Any) -> Path:
    tifffile.imwrite(path / "a.tif", ids(), **how)
    return path / "a.tif"


@pytest.mark.parametrize("make", MASKS.values(), ids=MASKS)
def test_whatever_is_not_0_is_the_region(tmp_path: Path, make: Callable[[Path, NDArray[Any]], Path]) -> None:
    regions = (
        {"synapse": make(tmp_path, INSIDE), "my-2nd_one": _slices(tmp_path, ~INSIDE)} if make is not _slices else {}
    )
    result = ingest(
        _labels(tmp_path), tmp_path / "a.zarr", SIZE, regions=regions or {"synapse": _slices(tmp_path, INSIDE)}
    )
    for source in (
        open_source(tmp_path / "a.zarr"),
        ZarrSource(path=str(tmp_path / "a.zarr"), regions={"synapse": "synapse"}).open(),
    ):
        assert tuple(source.fields) == result.regions == tuple(regions or ("synapse",))
        np.testing.assert_array_equal(source.read_field("synapse", WHOLE), INSIDE)
        np.testing.assert_array_equal(source.read(WHOLE), ids())


def test_masks_are_label_images_on_the_labels_grid(tmp_path: Path) -> None:
    ingest(_labels(tmp_path), tmp_path / "a.zarr", SIZE, regions={"synapse": _tiff(tmp_path, INSIDE)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("", "synapse"):
            ImageLabel.from_zarr(zarr.open_group(tmp_path / "a.zarr" / name, mode="r"))
    scales = [
        json.loads((tmp_path / "a.zarr" / name / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
        for name in ("", "synapse")
    ]
    assert scales[0]["datasets"] == scales[1]["datasets"]
    mask = ZarrSource(path=str(tmp_path / "a.zarr"), dataset="synapse").open()
    np.testing.assert_array_equal(mask.read(WHOLE), INSIDE)


def test_a_crop_cuts_labels_and_masks_alike_and_stays_in_its_place(tmp_path: Path) -> None:
    box = Box((1, 6, 2), (4, 13, 20))
    regions = {"synapse": _slices(tmp_path, INSIDE)}
    ingest(_labels(tmp_path), tmp_path / "a.zarr", SIZE, regions=regions, roi=box.slices)
    source = open_source(tmp_path / "a.zarr")
    np.testing.assert_array_equal(source.read(Box.of_shape(box.shape)), ids()[box.slices])
    np.testing.assert_array_equal(source.read_field("synapse", Box.of_shape(box.shape)), INSIDE[box.slices])
    assert source.origin_nm == exact3((40, 6 * 32, 2 * 31))


@pytest.mark.parametrize("how", [{}, {"tile": (16, 16), "compression": "lzw"}], ids=["uncompressed", "tiles"])
@pytest.mark.parametrize("box", [Box((2, 17, 33), (5, 18, 40)), Box((0, 0, 16), (5, 40, 32))])
def test_a_crop_of_a_stack_is_that_part_of_it(tmp_path: Path, how: dict[str, Any], box: Box) -> None:
    a = ids("uint32", (5, 40, 50))
    tifffile.imwrite(tmp_path / "a.tif", a, **how)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE, roi=box.slices)
    np.testing.assert_array_equal(open_source(tmp_path / "a.zarr").read(Box.of_shape(box.shape)), a[box.slices])


def test_a_crop_needs_nothing_outside(tmp_path: Path) -> None:
    """Damage outside the crop does not matter, for nothing there is read."""
    tifffile.imwrite(tmp_path / "a.tif", ids("uint16", (6, 64, 64)), compression="zlib", tile=(16, 16))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        pages: Any = list(tif.pages)
        spoil = [*pages[5].dataoffsets, *pages[2].dataoffsets[4:], *(pages[2].dataoffsets[n] for n in (0, 2, 3))]
    with open(tmp_path / "a.tif", "r+b") as file:
        for offset in spoil:
            file.seek(offset)
            file.write(b"\0\0\0\0")
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", SIZE, roi="2:3,:16,16:32")
    with pytest.raises(SourceError, match="page 3 of 6"):
        ingest(tmp_path / "a.tif", tmp_path / "b.zarr", SIZE, roi="2:3,:16,16:33")


@pytest.mark.parametrize("roi", [":,:,:24", "5:,:,:", np.s_[-1:, :, :], ":,3:3,:", "2:1,:,:"])
def test_a_crop_outside_is_refused(tmp_path: Path, roi: Any) -> None:
    with pytest.raises(SpecError, match=r"--roi .*whose voxels are 0:5,0:14,0:23"):
        ingest(_labels(tmp_path), tmp_path / "a.zarr", SIZE, roi=roi)


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    regions = {"synapse": _tiff(tmp_path, INSIDE[:, :-1])}
    with pytest.raises(SourceError, match=r"synapse.*mask\.tif has the shape 5 x 13 x 23.*a\.tif have 5 x 14 x 23"):
        ingest(_labels(tmp_path), tmp_path / "a.zarr", SIZE, regions=regions)
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize(
    ("value", "message"), [(0, "is 0 everywhere"), (1, "is 0 nowhere")], ids=["empty", "everywhere"]
)
def test_a_mask_that_says_nothing_is_told(tmp_path: Path, value: int, message: str) -> None:
    regions = {"synapse": _tiff(tmp_path, np.full(SHAPE, value, np.uint8))}
    with pytest.warns(SimexmWarning, match=message):
        ingest(_labels(tmp_path), tmp_path / "a.zarr", SIZE, regions=regions)


@pytest.mark.parametrize("name", ["0", "a/b", "", "labels", "membrane", "..", "x y", "zarr.json"])
def test_a_name_that_cannot_be_a_region(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError, match="begins with a letter"):
        ingest(_labels(tmp_path), tmp_path / "a.zarr", SIZE, regions={name: _tiff(tmp_path, INSIDE)})


def test_stored_regions_count_in_identity_and_in_resolved_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n, mask in enumerate((INSIDE, ~INSIDE)):
        ingest(_labels(tmp_path), tmp_path / f"{n}.zarr", SIZE, regions={"synapse": _tiff(tmp_path, mask)})
    assert open_source(tmp_path / "0.zarr").identity != open_source(tmp_path / "1.zarr").identity
    monkeypatch.chdir(tmp_path)
    (tmp_path / "synapse").mkdir()
    source = ZarrSource(path="0.zarr")
    assert source.masks_and_fields()[0] == {"synapse": "synapse"} == source.resolved().regions
    other = ZarrSource(path="0.zarr", regions={"synapse": "1.zarr/synapse"})
    assert other.masks_and_fields()[0] == {"synapse": "1.zarr/synapse"}
    np.testing.assert_array_equal(other.open().read_field("synapse", WHOLE), ~INSIDE)
    assert ZarrSource(path="nowhere.zarr").masks_and_fields() == ({}, {})


def test_a_failed_mask_leaves_nothing(tmp_path: Path) -> None:
    mask = _slices(tmp_path, INSIDE)
    (mask / "slice_11.png").write_bytes((mask / "slice_11.png").read_bytes()[:60])
    with pytest.raises(SourceError, match=r"slice_11\.png is damaged"):
        ingest(_labels(tmp_path), tmp_path / "a.zarr", SIZE, regions={"synapse": mask})
    assert {p.name for p in tmp_path.iterdir()} == {"a.tif", "mask"}


def test_progress_counts_masks(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    ingest(
        _labels(tmp_path), tmp_path / "a.zarr", SIZE, regions={"synapse": _tiff(tmp_path, INSIDE)},
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen[-1] == (2 * WHOLE.size, 2 * WHOLE.size)


def _shell(*words: Any) -> tuple[int, str]:
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, ["ingest", *map(str, words)])
    return done.exit_code, done.output


def test_the_command(tmp_path: Path) -> None:
    mask = _tiff(tmp_path, INSIDE)
    where = tmp_path / "a.zarr"
    code, told = _shell(
        _labels(tmp_path), "-o", where, "--voxel-size", 40, 32, 31, "--region", f"synapse={mask}", "--roi", "1:4,2:6,3:8",
    )  # fmt: skip
    assert code == 0, told
    assert "3 x 4 x 5 voxels of 40 x 32 x 31 nm, uint16, regions synapse" in told
    box = Box.at((1, 2, 3), (3, 4, 5))
    np.testing.assert_array_equal(open_source(where).read_field("synapse", Box.of_shape((3, 4, 5))), INSIDE[box.slices])
    code, told = _shell(where, "-o", tmp_path / "b.zarr", "--region", f"again={where}/synapse", "--roi", "1:,:,:")
    assert code == 0, told
    again = open_source(tmp_path / "b.zarr")
    assert again.origin_nm == exact3((80, 64, 93))
    assert tuple(again.fields) == ("synapse", "again")
    for name in tuple(again.fields):
        np.testing.assert_array_equal(again.read_field(name, Box.of_shape((2, 4, 5))), INSIDE[box.slices][1:])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--voxel-size Z Y X"),
        (("--region", "mask.tif"), "NAME=PATH"),
        (("--region", "a=x.tif", "--region", "a=y.tif"), "same name"),
        (("--cells", "split"), "type merged"),
        (("--dataset", "labels"), "no data sets"),
    ],
)
def test_what_the_command_refuses(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    code, told = _shell(_labels(tmp_path), "-o", tmp_path / "a.zarr", *words)
    assert code == 2
    assert message in told
    assert not (tmp_path / "a.zarr").exists()


SPECS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "TIFF": (_labels, "is a TIFF file.*simexm ingest .* --voxel-size Z Y X"),
    "slices": (
        lambda p: write_slices(p / "s", ids()),
        r"is an image sequence.*simexm ingest .*s -o s\.zarr --voxel-size Z Y X",
    ),
    "folders": (lambda p: write_slices(p / "s", ids()).parent, "--cells splitted --voxel-size Z Y X"),
}


@pytest.mark.parametrize(("make", "message"), SPECS.values(), ids=SPECS)
def test_as_a_source_of_a_spec_it_says_what_to_type(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(make(tmp_path))


def test_regions_are_replaced_with_their_labels(tmp_path: Path) -> None:
    ingest(_labels(tmp_path), tmp_path / "a.zarr", SIZE, regions={"synapse": _tiff(tmp_path, INSIDE)})
    (tmp_path / "a.zarr/synapse/0/notes").write_text("mine")
    with pytest.raises(OutputError, match=r"holds synapse/0/notes, which .* would delete"):
        ingest(_labels(tmp_path), tmp_path / "a.zarr", SIZE, overwrite=True)
    (tmp_path / "a.zarr/synapse/0/notes").unlink()
    ingest(_labels(tmp_path), tmp_path / "a.zarr", SIZE, overwrite=True)
    assert tuple(open_source(tmp_path / "a.zarr").fields) == ()
