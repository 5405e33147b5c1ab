"""A folder of slices is the volume that was meant, and where it may not be, the file to blame is named."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from simexm.errors import SimexmWarning, SourceError, SourceNotFoundError
from simexm.geometry.grid import Box
from simexm.ingestion.ingest import ingest
from simexm.sources.opening import open_stack
from tests.sources.volumes import SHAPE, SIZE, ids, whole, write_slice, write_slices


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [("png", "uint8"), ("png", "uint16"), ("bmp", "uint8"), ("tif", "uint8"), ("tif", "uint16"), ("tif", "uint32"), ("tif", "uint64")],
)  # fmt: skip
def test_slices_are_the_volume_in_natural_order(tmp_path: Path, suffix: str, dtype: str) -> None:
    a = ids(dtype)
    folder = write_slices(tmp_path / "s", a, f"slice_{{}}.{suffix}")
    for junk in (".DS_Store", "Thumbs.db", "._slice_9.png"):
        (folder / junk).write_text("junk")
    stack = open_stack(str(folder))
    np.testing.assert_array_equal(whole(stack), a)
    assert stack.dtype == a.dtype
    box = Box((1, 3, 2), (4, 11, 20))
    np.testing.assert_array_equal(stack.read(box), a[box.slices])


def test_ingest_takes_a_folder_and_a_glob(tmp_path: Path) -> None:
    a = ids("uint32")
    folder = write_slices(tmp_path / "s", a, "z{}.tif")
    write_slice(folder / "overview.png", a[0].astype(np.uint8))
    with (
        pytest.warns(SimexmWarning, match="do not count up"),
        pytest.raises(SourceError, match=r"overview\.png holds uint8|holds uint32"),
    ):
        ingest(folder, tmp_path / "a.zarr", SIZE)
    result = ingest(f"{folder}/z*.tif", tmp_path / "a.zarr", SIZE)
    assert (result.shape, result.dtype, result.largest_id) == (SHAPE, "uint32", a.max())
    np.testing.assert_array_equal(whole(open_stack(str(tmp_path / "a.zarr"))), a)
    with pytest.raises(SourceNotFoundError, match="no file"):
        open_stack(f"{folder}/y*.tif")


def _numbered(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        write_slice(folder / name, ids("uint8")[0])
    return folder


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (("001.png", "002.png", "004.png"), r"\(1\), so .*: 003\.png\."),
        (("s9.tif", "s10.tif", "s13.tif", "s14.tif"), r"\(2\), so .*: s11\.tif, s12\.tif\."),
        (("z00_of_30.png", "z10_of_30.png", "z30_of_30.png"), r"\(1\), so .*: z20_of_30\.png"),
    ],
)
def test_a_missing_slice_is_named(tmp_path: Path, names: tuple[str, ...], missing: str) -> None:
    with pytest.raises(SourceError, match=missing):
        open_stack(str(_numbered(tmp_path / "s", *names)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("top.png", "middle.png"), "do not count up"),
        (("a1b1.png", "a1b2.png", "a2b1.png"), "do not count up"),
        (("3.png", "10.png", "500.png"), "do not count up"),
        (("s000.png", "s010.png", "s020.png"), "steps of 10"),
    ],
)
def test_names_that_tell_no_gaps_are_told(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.warns(SimexmWarning, match=message):
        assert open_stack(str(_numbered(tmp_path / "s", *names))).shape[0] == len(names)


def test_whole_sequences_are_not_warned_of(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_stack(str(_numbered(tmp_path / "a", "img_99_c1.png", "img_100_c1.png", "img_101_c1.png")))
        open_stack(str(_numbered(tmp_path / "b", "only.png")))


def _odd_shape(folder: Path) -> None:
    write_slice(folder / "slice_10.png", np.ones((14, 22), np.uint16))


def _odd_type(folder: Path) -> None:
    write_slice(folder / "slice_10.png", np.ones((14, 23), np.uint8))


def _truncated(folder: Path) -> None:
    data = (folder / "slice_10.png").read_bytes()
    (folder / "slice_10.png").write_bytes(data[: len(data) // 2])


def _header_only(folder: Path) -> None:
    (folder / "slice_10.png").write_bytes((folder / "slice_10.png").read_bytes()[:12])


def _colour(folder: Path) -> None:
    colour = np.zeros((14, 23, 3), np.uint16)
    colour[3, 4] = 1, 2, 3
    write_slice(folder / "slice_10.png", colour)


def _transparent(folder: Path) -> None:
    colour = np.full((14, 23, 4), 2**16 - 1, np.uint16)
    colour[3, 4, 3] = 7
    write_slice(folder / "slice_10.png", colour)


def _jpeg(folder: Path) -> None:
    (folder / "slice_10.png").write_bytes(imagecodecs.jpeg8_encode(np.ones((14, 23), np.uint8)))


def _stack(folder: Path) -> None:
    write_slice(folder / "slice_10.tif", ids())
    (folder / "slice_10.png").unlink()


def _text(folder: Path) -> None:
    (folder / "notes.txt").write_text("which is which")


def _inner(folder: Path) -> None:
    (folder / "inner").mkdir()


def _twice(folder: Path) -> None:
    write_slice(folder / "slice_010.png", ids()[0])


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "another shape": (_odd_shape, r"slice_10\.png has 14 x 22 pixels.*slice_8\.png has 14 x 23"),
    "another type": (_odd_type, r"slice_10\.png holds uint8.*slice_8\.png holds uint16"),
    "cut off": (_truncated, r"slice_10\.png is damaged"),
    "cut off in its header": (_header_only, r"slice_10\.png is damaged"),
    "in colour": (_colour, r"slice_10\.png is in colour"),
    "transparent": (_transparent, r"slice_10\.png is transparent"),
    "JPEG": (_jpeg, r"slice_10\.png is a JPEG, which changes values"),
    "a text beside": (_text, r"notes\.txt"),
    "a folder beside": (_inner, "inner"),
    "the same number": (_twice, r"slice_0?10\.png and slice_0?10\.png have the same number"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
def test_the_file_to_blame_is_named(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    folder = write_slices(tmp_path / "s", ids())
    spoil(folder)
    with pytest.raises(SourceError, match=message):
        ingest(folder, tmp_path / "a.zarr", SIZE)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_stack_among_slices_says_what_to_type(tmp_path: Path) -> None:
    folder = write_slices(tmp_path / "s", ids(), "slice_{}.tif")
    write_slice(folder / "slice_10.tif", ids())
    with pytest.raises(SourceError, match=r"slice_10\.tif holds 5 planes.*--cells splitted"):
        open_stack(str(folder))


def test_a_single_slice_is_no_volume(tmp_path: Path) -> None:
    folder = write_slices(tmp_path / "s", ids())
    with pytest.raises(SourceError, match=rf"one slice.*Name the folder.*{folder}"):
        open_stack(str(folder / "slice_8.png"))


def _pil(image: Image.Image, how: str) -> bytes:
    data = io.BytesIO()
    image.save(data, how)
    return data.getvalue()


def _grey_palette(a: NDArray[Any]) -> Image.Image:
    image = Image.fromarray(a).convert("P")
    image.putpalette([v for v in range(256) for _ in range(3)])
    return image


GREYS: dict[str, Callable[[NDArray[Any]], bytes | bytearray]] = {
    "three equal channels": lambda a: imagecodecs.png_encode(np.stack([a] * 3, -1)),
    "opaque alpha": lambda a: imagecodecs.png_encode(np.stack([a] * 3 + [np.full_like(a, 255)], -1)),
    "grey and opaque alpha": lambda a: imagecodecs.png_encode(np.stack([a, np.full_like(a, 255)], -1)),
    "BMP of three equal channels": lambda a: imagecodecs.bmp_encode(np.stack([a] * 3, -1)),
    "grey palette in a PNG": lambda a: _pil(_grey_palette(a), "PNG"),
    "grey palette in a BMP": lambda a: _pil(_grey_palette(a), "BMP"),
}


@pytest.mark.parametrize("encode", GREYS.values(), ids=GREYS)
def test_grey_is_taken_however_it_is_stored(
    tmp_path: Path, encode: Callable[[NDArray[Any]], bytes | bytearray]
) -> None:
    a = ids("uint8")
    (tmp_path / "s").mkdir()
    for z, plane in enumerate(a):
        (tmp_path / "s" / f"{z}.img").write_bytes(encode(plane))
    np.testing.assert_array_equal(whole(open_stack(str(tmp_path / "s"))), a)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_not_stretched(tmp_path: Path, bits: int) -> None:
    """PNG readers turn 1, 2 and 4 bits into 0 to 255, which would be other ids."""
    import struct
    import zlib

    a = ids("uint8")[0, :, :16] % 2**bits
    rows = np.packbits(np.unpackbits(a[..., None], axis=-1)[..., -bits:].reshape(14, -1), axis=-1)
    (tmp_path / "s").mkdir()
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 16, 14, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        (b"IEND", b""),
    ]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    (tmp_path / "s" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    np.testing.assert_array_equal(whole(open_stack(str(tmp_path / "s")))[0], a)
