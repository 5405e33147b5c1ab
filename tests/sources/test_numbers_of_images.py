"""What is read of an image is its numbers: indexes, not colours; ids that colours or floats hold; tiles put together."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from simexm.cli import app
from simexm.errors import SimexmWarning, SourceError
from simexm.geometry.grid import Box
from simexm.sources.arrays import ArrayVolume
from simexm.sources.opening import open_stack
from simexm.sources.stack import cell_ids, mask
from tests.sources.volumes import SHAPE, SIZE, ids, whole, write_slice

INVERTED = [v for i in range(256) for v in (255 - i,) * 3]
CELLS = (np.arange(14 * 23).reshape(14, 23) % 3).astype(np.uint8)


def indexed(a: NDArray[np.uint8], palette: list[int] = INVERTED) -> Image.Image:
    """An image whose numbers are shown in the colours of a palette."""
    image = Image.fromarray(a).convert("P")
    image.putdata(a.ravel().tolist())
    image.putpalette(palette)
    return image


def _pil(how: str, **options: Any) -> Callable[[NDArray[np.uint8], Path], None]:
    return lambda a, path: indexed(a).save(path, how, **options)


def _bmp(bits: int, *, upside: int = 1) -> Callable[[NDArray[np.uint8], Path], None]:
    """Write a BMP of few bits by hand, from the bottom or (-1) from the top."""

    def write(a: NDArray[np.uint8], path: Path) -> None:
        rows = np.packbits(np.unpackbits(a[..., None], axis=-1)[..., -bits:].reshape(len(a), -1), axis=-1)
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))[::-upside]
        palette = b"".join(bytes([200 - 10 * i] * 3 + [0]) for i in range(2**bits))
        begin = 54 + len(palette)
        header = np.array(
            [40, a.shape[1], upside * len(a), 1 + (bits << 16), 0, rows.size, 0, 0, 0, 0], "<i4"
        ).tobytes()
        head = b"BM" + np.array([begin + rows.size, 0, begin], "<i4").tobytes()
        path.write_bytes(head + header + palette + rows.tobytes())

    return write


def _palette_tiff(a: NDArray[np.uint8], path: Path) -> None:
    colormap = (np.array([INVERTED[::3]] * 3) * 257).astype(np.uint16)
    tifffile.imwrite(path, a, photometric="palette", colormap=colormap)


def _white_is_0(a: NDArray[np.uint8], path: Path) -> None:
    tifffile.imwrite(path, a, photometric="miniswhite")


INDEXED: dict[str, Callable[[NDArray[np.uint8], Path], None]] = {
    "PNG": _pil("PNG"),
    "PNG of 2 bits": _pil("PNG", bits=2),
    "PNG of 2 colours": _pil("PNG", bits=1),
    "PNG with a transparent index": _pil("PNG", transparency=0),
    "BMP": _pil("BMP"),
    "BMP of 4 bits": _bmp(4),
    "BMP of 2 colours": _bmp(1),
    "BMP from the top": _bmp(4, upside=-1),
    "TIFF": _palette_tiff,
    "TIFF whose 0 is white": _white_is_0,
}


@pytest.mark.parametrize("name", INDEXED)
def test_an_index_is_the_number_and_its_colour_is_nothing(tmp_path: Path, name: str) -> None:
    first = CELLS % 2 if "2 colours" in name else CELLS
    wanted = np.stack([first, np.roll(first, 1, axis=1)])
    (tmp_path / "s").mkdir()
    for z, plane in enumerate(wanted):
        INDEXED[name](plane, tmp_path / "s" / f"{z}.img")
    with pytest.warns(SimexmWarning, match=r"0\.img shows its numbers in other colours") as told:
        stack = open_stack(str(tmp_path / "s"))
    assert len(told) == 1, "of the first slice alone"
    np.testing.assert_array_equal(whole(stack), wanted)
    box = Box.of_shape(stack.shape)
    np.testing.assert_array_equal(mask(stack, box).read(box), wanted != 0)


def test_a_mask_with_an_inverting_palette_is_no_complement(tmp_path: Path) -> None:
    """On the command line, as Fiji leaves it: 255 inside, shown black."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "mask").mkdir()
    inside = np.zeros((14, 23), np.uint8)
    inside[2:5, 3:9] = 255
    for z in range(3):
        write_slice(tmp_path / "labels" / f"{z}.png", CELLS)
        indexed(inside).save(tmp_path / "mask" / f"{z}.png")
    done = CliRunner().invoke(
        app, ["ingest", f"{tmp_path}/labels", "-o", f"{tmp_path}/a.zarr", "--voxel-size", "40", "32", "32",
              "--region", f"syn={tmp_path}/mask", "-q"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "0 is outside" in done.stderr
    assert np.asarray(zarr.open_array(tmp_path / "a.zarr/syn/0", mode="r")[...]).sum() == 3 * 18


# ---------------------------------------------------------------- ids in colours

PACKED = np.random.default_rng(3).integers(0, 2**24, SHAPE, dtype=np.uint32)


def _colours(packed: NDArray[np.uint32], order: str) -> NDArray[np.uint8]:
    """(..., 3): the first colour of the order holds the largest byte."""
    parts = {"rgb"[i] if order == "rgb" else "bgr"[i]: packed >> (16 - 8 * i) & 255 for i in range(3)}
    return np.stack([parts[c] for c in "rgb"], -1).astype(np.uint8)


def _folder(encode: Callable[[NDArray[np.uint8]], bytes | bytearray]) -> Callable[[Path, NDArray[np.uint8]], Path]:
    def write(path: Path, colours: NDArray[np.uint8]) -> Path:
        path.mkdir()
        for z, plane in enumerate(colours):
            (path / f"{z}.img").write_bytes(encode(plane))
        return path

    return write


def _stack(**how: Any) -> Callable[[Path, NDArray[np.uint8]], Path]:
    def write(path: Path, colours: NDArray[np.uint8]) -> Path:
        separate = how.get("planarconfig") == "separate"
        tifffile.imwrite(path, np.moveaxis(colours, -1, 1) if separate else colours, photometric="rgb", **how)
        return path

    return write


COLOURED: dict[str, Callable[[Path, NDArray[np.uint8]], Path]] = {
    "PNG": _folder(imagecodecs.png_encode),
    "BMP": _folder(imagecodecs.bmp_encode),
    "PNG with opacity": _folder(lambda a: imagecodecs.png_encode(np.dstack([a, np.full(a.shape[:2], 255, np.uint8)]))),
    "TIFF": _stack(),
    "TIFF of strips": _stack(compression="zlib", rowsperstrip=3),
    "TIFF of tiles": _stack(compression="lzw", tile=(16, 16)),
    "TIFF of separate planes": _stack(planarconfig="separate"),
    "TIFF of separate tiles": _stack(planarconfig="separate", compression="zlib", tile=(16, 16)),
}


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("write", COLOURED.values(), ids=COLOURED)
def test_ids_are_unpacked_from_colours_where_that_is_asked_for(
    tmp_path: Path, write: Callable[[Path, NDArray[np.uint8]], Path], order: Any
) -> None:
    path = write(tmp_path / "s", _colours(PACKED, order))
    stack = open_stack(str(path), color_ids=order)
    assert stack.dtype == np.uint32
    np.testing.assert_array_equal(whole(stack), PACKED)
    box = Box((1, 2, 5), (3, 9, 21))
    np.testing.assert_array_equal(stack.read(box), PACKED[box.slices])
    with pytest.raises(SourceError, match=r"in colour.*--color-ids rgb"):
        whole(open_stack(str(path)))


def test_colours_of_16_bits_are_no_packed_ids(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((*SHAPE, 3), np.uint16), photometric="rgb")
    assert whole(open_stack(str(tmp_path / "a.tif"))).all(), "three equal channels are grey"
    with pytest.raises(SourceError, match="three times 8 bits"):
        whole(open_stack(str(tmp_path / "a.tif"), color_ids="rgb"))


def test_the_command_says_what_to_type_for_colours(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", _colours(PACKED, "rgb"), photometric="rgb")
    words = ["ingest", f"{tmp_path}/a.tif", "-o", f"{tmp_path}/a.zarr", "--voxel-size", "40", "32", "32", "-q"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "--color-ids rgb" in done.stderr
    done = CliRunner().invoke(app, [*words, "--color-ids", "rgb"])
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr/0", mode="r")[...], PACKED)


# --------------------------------------------------------------- ids in floats


@pytest.mark.parametrize(
    ("dtype", "unsigned", "end"),
    [("float16", "uint16", 2**11), ("float32", "uint32", 2**24), ("float64", "uint64", 2**53)],
)
def test_whole_numbers_stored_as_floats_are_ids(tmp_path: Path, dtype: str, unsigned: str, end: int) -> None:
    a = np.random.default_rng(0).integers(0, end, SHAPE).astype(unsigned)
    a[0, 0, :2] = 0, end - 1
    np.save(tmp_path / "a.npy", a.astype(dtype))
    numbers = cell_ids(open_stack(str(tmp_path / "a.npy")), Box.of_shape(SHAPE))
    assert numbers.dtype == unsigned
    np.testing.assert_array_equal(numbers.read(Box.of_shape(SHAPE)), a)
    np.testing.assert_array_equal(ArrayVolume(a.astype(dtype), SIZE).read(Box.of_shape(SHAPE)), a)


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf, -np.inf, 2.0**24, 1e30])
def test_any_other_float_is_no_id(tmp_path: Path, value: float) -> None:
    """2^24 is refused, for 2^24 + 1 is stored as it."""
    a = ids("uint8").astype(np.float32)
    a[3, 4, 5] = value
    tifffile.imwrite(tmp_path / "a.tif", a)
    with pytest.raises(SourceError, match=r"a\.tif, page 4: the value .* is no id"):
        cell_ids(open_stack(str(tmp_path / "a.tif")), Box.of_shape(SHAPE)).read(Box.of_shape(SHAPE))
    with pytest.raises(SourceError, match=r"plane 3: the value .* is no id"):
        ArrayVolume(a, SIZE)


def test_a_mask_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    """NaN is not 0, and would count as inside."""
    a = np.zeros(SHAPE, np.float32)
    a[2, 1, 1] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", a)
    with pytest.raises(SourceError, match=r"page 3: the mask holds NaN"):
        mask(open_stack(str(tmp_path / "a.tif")), Box.of_shape(SHAPE)).read(Box.of_shape(SHAPE))


# ----------------------------------------------------------------------- tiles


def write_tiles(folder: Path, a: NDArray[Any], name: str = "seg_s{z:03}_Y{r}_X{c}.png", first: int = 1) -> Path:
    """Cut slices into rows that end at 6 and 14, and columns that end at 10 and 23."""
    folder.mkdir()
    for z, plane in enumerate(a):
        for r, rows in enumerate((slice(0, 6), slice(6, 14)), first):
            for c, columns in enumerate((slice(0, 10), slice(10, 23)), first):
                begin = {"y": rows.start, "x": columns.start}
                write_slice(folder / name.format(z=z, r=r, c=c, **begin), plane[rows, columns])
    return folder


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("seg_s{z:03}_Y{r}_X{c}.png", 1),
        ("seg_s{z:03}_tr{r}-tc{c}.png", 0),
        ("x{c}_y{r}_z{z}.tif", 0),
        ("{z}_y{y}_x{x}.png", 0),
    ],
)
def test_tiles_are_put_together(tmp_path: Path, name: str, first: int) -> None:
    a = ids()
    stack = open_stack(str(write_tiles(tmp_path / "s", a, name, first)))
    np.testing.assert_array_equal(whole(stack), a)
    box = Box((1, 4, 8), (3, 9, 12))  # across all four
    np.testing.assert_array_equal(stack.read(box), a[box.slices])


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _odd(folder: Path) -> None:
    write_slice(folder / "seg_s001_Y2_X1.png", np.zeros((8, 9), np.uint16))


def _whole_column(folder: Path) -> None:
    for path in [*folder.glob("*_X2.png")]:
        path.rename(path.with_name(path.name.replace("_X2", "_X3")))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_without("seg_s001_Y2_X1.png"), "lacks the tile row 2, column 1"),
        (_odd, "8 x 9 pixels"),
        (_whole_column, "columns of tiles are numbered 1, 3"),
    ],
    ids=["a tile", "its size", "a column"],
)
def test_a_tile_that_is_missing_is_named(tmp_path: Path, spoil: Callable[[Path], None], told: str) -> None:
    folder = write_tiles(tmp_path / "s", ids())
    spoil(folder)
    with pytest.raises(SourceError, match=re.escape(told)):
        open_stack(str(folder))


def test_a_slice_of_tiles_that_is_missing_is_a_gap(tmp_path: Path) -> None:
    folder = write_tiles(tmp_path / "s", ids())
    for path in folder.glob("seg_s002*"):
        path.unlink()
    with pytest.raises(SourceError, match="slices are missing"):
        open_stack(str(folder))


def test_rounds_and_channels_are_not_taken_for_tiles(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="rows and columns of tiles, or rounds and channels"):
        open_stack(str(write_tiles(tmp_path / "s", ids(), "z{z}_r{r}_c{c}.png")))


def test_one_tile_of_a_larger_mosaic_is_a_sequence(tmp_path: Path) -> None:
    folder = write_tiles(tmp_path / "s", ids())
    np.testing.assert_array_equal(whole(open_stack(f"{folder}/*_Y1_X2.png")), ids()[:, :6, 10:])


# ---------------------------------------------------------- files that are bombs


def test_a_png_that_cannot_hold_what_it_tells(tmp_path: Path) -> None:
    data = bytearray(imagecodecs.png_encode(CELLS))
    data[16:24] = np.array([100_000, 100_000], ">u4").tobytes()
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "0.png").write_bytes(data)
    with pytest.raises(SourceError, match=r"0\.png is damaged.*100000 x 100000 pixels"):
        open_stack(str(tmp_path / "s"))


def test_what_would_fill_the_memory_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """Its bytes could hold 10^12 pixels of one value."""
    data = bytearray(imagecodecs.png_encode(CELLS))
    data[16:24] = np.array([10**6, 10**6], ">u4").tobytes()
    (tmp_path / "s").mkdir()
    with (tmp_path / "s" / "0.png").open("wb") as file:
        file.write(data)
        file.truncate(10**9)
    done = CliRunner().invoke(
        app, ["ingest", f"{tmp_path}/s", "-o", f"{tmp_path}/a.zarr", "--voxel-size", "40", "32", "32"]
    )
    assert done.exit_code == 2
    assert "decoded together" in done.stderr
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("how", ["PNG", "BMP"])
def test_an_indexed_slice_that_is_cut_off(tmp_path: Path, how: str, share: float) -> None:
    data = io.BytesIO()
    indexed(ids("uint8")[0]).save(data, how)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "0.img").write_bytes(data.getvalue()[: max(int(len(data.getvalue()) * share), 9)])
    with pytest.raises(SourceError, match=r"0\.img is damaged"):
        whole(open_stack(str(tmp_path / "s")))
