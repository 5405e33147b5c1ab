"""TIFFs as other programs write them: sizes and positions, layouts, compressions, and headers that lie."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from simexm.cli import app
from simexm.errors import SimexmError, SimexmWarning, SourceError, SpecError
from simexm.geometry.grid import Box, Spacing, exact3
from simexm.ingestion.ingest import ingest
from simexm.sources.lossless import is_lossless
from simexm.sources.opening import open_stack
from tests.sources.volumes import SIZE, ids, whole, write_slices

A = ids()
NM = exact3((40, 8, 4))
ZERO = exact3((0, 0, 0))
OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'DimensionOrder="XYZCT" Type="uint16" SizeX="23" SizeY="14" SizeZ="{z}" SizeC="1" SizeT="1" {more}><TiffData/>'
    "{planes}</Pixels></Image></OME>"
)
AT = '<Plane TheC="0" TheT="0" TheZ="0" PositionX="1" PositionY="2" PositionZ="3" {unit}/>'
IN_NM = " ".join(f'Position{a}Unit="nm"' for a in "XYZ")
IN_UM = 'PhysicalSizeX="0.004" PhysicalSizeY="0.008" PhysicalSizeZ="0.04"'


def _ome(more: str, planes: str = "") -> dict[str, Any]:
    return {"description": OME.format(z=5, more=more, planes=planes).encode(), "metadata": None}


def _imagej(more: str = "", **tags: Any) -> dict[str, Any]:
    text = f"ImageJ=1.54f\nimages=5\nslices=5\n{more}"
    return {"description": text, "metadata": None, "resolution": (250, 125), "resolutionunit": 1, **tags}


SIZES: dict[str, tuple[dict[str, Any], Spacing | None, Spacing]] = {
    "OME in its default unit": (_ome(IN_UM), NM, ZERO),
    "OME in nm": (
        _ome("".join(f'PhysicalSize{a}="{s}" PhysicalSize{a}Unit="nm" ' for a, s in zip("ZYX", (40, 8, 4), strict=True))), NM, ZERO
    ),
    "OME with a position": (_ome(IN_UM, AT.format(unit=IN_NM)), NM, exact3((3 - 20, 2 - 4, 1 - 2))),
    "OME with a position of the stage's frame": (_ome(IN_UM, AT.format(unit="")), NM, ZERO),
    "OME without z": (_ome('PhysicalSizeX="0.004" PhysicalSizeY="0.008"'), None, ZERO),
    "OME in pixels": (_ome("".join(f'PhysicalSize{a}="1" PhysicalSize{a}Unit="pixel" ' for a in "XYZ")), None, ZERO),
    "OME of a size without end": (_ome('PhysicalSizeX="1e999999999" PhysicalSizeY="1" PhysicalSizeZ="1"'), None, ZERO),
    "ImageJ": (_imagej("unit=um\nspacing=0.04\n"), NM, ZERO),
    "ImageJ with an escaped unit": (_imagej("unit=\\u00B5m\nspacing=0.04\n"), NM, ZERO),
    "ImageJ with a unit for z": (_imagej("unit=um\nzunit=nm\nspacing=40\n"), NM, ZERO),
    "ImageJ with an origin": (_imagej("unit=um\nspacing=0.04\nxorigin=-2\nzorigin=3\n"), NM, exact3((-120, 0, 8))),
    "ImageJ without spacing": (_imagej("unit=um\n"), None, ZERO),
    "ImageJ in pixels": (_imagej("unit=pixel\nspacing=1\n"), None, ZERO),
    "ImageJ of a screen": (_imagej("unit=inch\nspacing=1\n", resolution=(72, 72), resolutionunit=2), None, ZERO),
    "tifffile": ({"metadata": {"unit": "um", "spacing": 0.04}, "resolution": (250, 125), "resolutionunit": 1}, NM, ZERO),
    "a screen": ({"metadata": None, "resolution": (72, 72), "resolutionunit": 2}, None, ZERO),
    "centimetres, and no planes' distance": ({"metadata": None, "resolution": (2.5e6, 1.25e6), "resolutionunit": 3}, None, ZERO),
}  # fmt: skip


@pytest.mark.parametrize(("how", "size", "begin"), SIZES.values(), ids=SIZES)
def test_size_and_position_are_read_where_they_can_be_trusted(
    tmp_path: Path, how: dict[str, Any], size: Spacing | None, begin: Spacing
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", A, photometric="minisblack", **how)
    stack = open_stack(str(tmp_path / "a.tif"))
    assert (stack.voxel_size_nm, stack.origin_nm) == (size, begin)
    np.testing.assert_array_equal(whole(stack), A)
    if size is None:
        with pytest.raises(SpecError, match="--voxel-size Z Y X"):
            ingest(tmp_path / "a.tif", tmp_path / "a.zarr")


def test_sizes_of_an_lsm(tmp_path: Path) -> None:
    """Zeiss keeps them in metres, in a tag of its own."""
    data = bytearray(struct.calcsize("<ii10i6d") + 400)
    struct.pack_into("<II", data, 0, 67127628, len(data))
    struct.pack_into("<5i", data, 8, 23, 14, 5, 1, 1)
    struct.pack_into("<3d", data, 40, 4e-9, 8e-9, 40e-9)
    tags: list[Any] = [(34412, 1, len(data), bytes(data), True)]
    with tifffile.TiffWriter(tmp_path / "a.lsm") as writer:
        for z, plane in enumerate(A):
            writer.write(plane, metadata=None, extratags=tags if z == 0 else (), compression="lzw")
            writer.write(plane[::4, ::4], metadata=None, subfiletype=1)  # each has its thumbnail
    stack = open_stack(str(tmp_path / "a.lsm"))
    assert stack.voxel_size_nm == NM
    np.testing.assert_array_equal(whole(stack), A)


def test_a_sequence_has_the_size_of_its_slices(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for z, plane in enumerate(A):
        tifffile.imwrite(
            tmp_path / "s" / f"{z}.tif", plane, **_ome(IN_UM) | {"description": OME.format(z=1, more=IN_UM, planes="")}
        )
    assert open_stack(str(tmp_path / "s")).voxel_size_nm == NM
    tifffile.imwrite(tmp_path / "s" / "3.tif", A[3])
    with pytest.raises(SpecError, match=r"the same in all its files.*--voxel-size"):
        ingest(tmp_path / "s", tmp_path / "a.zarr")
    ingest(tmp_path / "s", tmp_path / "a.zarr", SIZE)


@pytest.mark.parametrize("unit", ["m", "angstrom"])
def test_a_size_that_no_voxel_has_stops_unless_another_is_given(tmp_path: Path, unit: str) -> None:
    more = "".join(f'PhysicalSize{a}="0.04" PhysicalSize{a}Unit="{unit}" ' for a in "XYZ")
    tifffile.imwrite(tmp_path / "a.tif", A, **_ome(more))
    words = ["ingest", f"{tmp_path}/a.tif", "-o", f"{tmp_path}/a.zarr", "-q"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "larger than an atom" in done.stderr
    assert "--voxel-size Z Y X" in done.stderr
    assert CliRunner().invoke(app, [*words, "--voxel-size", "0.004", "4", "4"]).exit_code == 2
    assert CliRunner().invoke(app, [*words, "--voxel-size", "40", "4", "4"]).exit_code == 0


def test_rounded_sizes_of_labels_and_mask_are_one_grid(tmp_path: Path) -> None:
    """ImageJ holds the number of pixels in a unit, so that a third of a micrometre is rounded."""
    tifffile.imwrite(
        tmp_path / "a.tif", A, **_ome('PhysicalSizeX="0.0333333333333" PhysicalSizeY="0.03" PhysicalSizeZ="0.04"')
    )
    for name, x in (("good", 30), ("other", 25)):
        tifffile.imwrite(tmp_path / f"{name}.tif", A, **_imagej("unit=um\nspacing=0.04\n", resolution=(x, 1 / 0.03)))
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", regions={"syn": tmp_path / "good.tif"})
    with pytest.raises(SourceError, match=r"33\.3333 nm"):
        ingest(tmp_path / "a.tif", tmp_path / "b.zarr", regions={"syn": tmp_path / "other.tif"})
    ingest(
        tmp_path / "a.tif", tmp_path / "c.zarr", SIZE, regions={"syn": tmp_path / "other.tif"}
    )  # the user knows better


# --------------------------------------------------------------------- layouts


def _pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as writer:
        writer.write(A, subifds=1, tile=(16, 16), metadata={"axes": "ZYX"})
        writer.write(A[:, ::2, ::2], subfiletype=1, tile=(16, 16))


def _thumbnail(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(A, compression="zlib", metadata=None)
        writer.write(A[0, ::2, ::2], subfiletype=1, metadata=None)


def _one_page_for_all(path: Path) -> None:
    """As ImageJ writes beyond 4 GB: one page, and the other planes behind it."""
    tifffile.imwrite(path, A[:1], metadata=None, description="ImageJ=1.54f\nimages=5\nslices=5\n")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.dataoffsets[0]
    path.write_bytes(path.read_bytes()[:offset] + A.tobytes())


def _axes_of_1(path: Path) -> None:
    tifffile.imwrite(path, A[None, :, None], ome=True, metadata={"axes": "TZCYX"})


@pytest.mark.parametrize("write", [_pyramid, _thumbnail, _one_page_for_all, _axes_of_1])
def test_the_volume_is_found_in_any_layout(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "a.tif")
    np.testing.assert_array_equal(whole(open_stack(str(tmp_path / "a.tif"))), A)


def test_planes_that_are_said_to_be_channels_are_told(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", A, photometric="minisblack", ome=True, metadata={"axes": "CYX"})
    with pytest.warns(SimexmWarning, match="its 5 planes are channels"):
        np.testing.assert_array_equal(whole(open_stack(str(tmp_path / "a.tif"))), A)


def test_planes_and_channels_are_not_mixed(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([A, A], axis=1), imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(SourceError, match="the axes ZCYX"):
        open_stack(str(tmp_path / "a.tif"))


# ---------------------------------------------------------------- compressions

GREY = ids("uint8") // 4
COLOUR = np.repeat(GREY[..., None], 3, axis=-1)


@pytest.mark.parametrize(
    ("method", "how", "lossless"),
    [
        ("lzw", {}, True), ("packbits", {}, True), ("lzma", {}, True), ("zstd", {}, True), ("png", {}, True), ("zlib", {}, True),
        ("jpeg", {"lossless": True}, True), ("jpeg", {}, False),
        ("lerc", {}, True), ("lerc", {"level": 2.0}, False),
        ("webp", {"lossless": True}, True), ("webp", {"lossless": False, "level": 50}, False),
        ("jpeg2000", {}, False), ("jpegxl", {}, False), ("jpegxr", {}, False),
    ],
)  # fmt: skip
def test_only_what_is_proved_to_lose_nothing_is_read(
    tmp_path: Path, method: str, how: dict[str, Any], lossless: bool
) -> None:
    a, photometric = (COLOUR, "rgb") if method == "webp" else (GREY, "minisblack")
    tifffile.imwrite(tmp_path / "a.tif", a, compression=method, compressionargs=how, photometric=photometric)
    if lossless:
        np.testing.assert_array_equal(whole(open_stack(str(tmp_path / "a.tif"))), GREY)
    else:
        with pytest.raises(SourceError, match=r"which changes values.*LZW, Deflate.*write a copy: python -c"):
            open_stack(str(tmp_path / "a.tif"))


def test_a_lossy_page_among_lossless_ones_is_found(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for n, plane in enumerate(GREY):
            writer.write(plane, compression="lerc", compressionargs={"level": 3.0 if n == 3 else 0.0}, metadata=None)
    stack = open_stack(str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(stack.read(Box((0, 0, 0), (3, 14, 23))), GREY[:3])
    with pytest.raises(SourceError, match="page 4 is compressed by LERC"):
        whole(stack)


def test_two_levels_of_fax_are_masks(tmp_path: Path) -> None:
    pages = [Image.fromarray(p > 20) for p in GREY]
    for method in ("group3", "group4"):
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression=method)
        np.testing.assert_array_equal(whole(open_stack(str(tmp_path / "a.tif"))), GREY > 20)


@pytest.mark.parametrize("stream", [b"", b"\xff\xd8", b"Lerc2 \x04", b"RIFF"])
def test_a_stream_that_is_cut_off_proves_nothing(stream: bytes) -> None:
    assert not any(is_lossless(method, stream) for method in (7, 34887, 50001))


# ------------------------------------------------------------ headers that lie


def _written(**how: Any) -> bytes:
    data = io.BytesIO()
    tifffile.imwrite(data, A, photometric="minisblack", **how)
    return data.getvalue()


def _entry(data: bytes, tag: int) -> int:
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        return int(tif.pages.first.tags[tag].offset)


def _value(tag: int, value: int) -> Callable[[bytes], bytes]:
    """Another value of a tag, of 32 bits."""

    def change(data: bytes) -> bytes:
        at = _entry(data, tag)
        return data[: at + 2] + struct.pack("<HII", 4, 1, value) + data[at + 12 :]

    return change


def _many_strips(data: bytes) -> bytes:
    at = _entry(data, 273)
    return data[: at + 4] + struct.pack("<I", 10**9) + data[at + 8 :]


def _cyclic(data: bytes) -> bytes:
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        first = tif.pages.first
        at = first.offset + 2 + 12 * len(first.tags)
        return data[:at] + struct.pack("<I", first.offset) + data[at + 4 :]


LIES = {
    "10^12 pixels": lambda data: _value(257, 10**6)(_value(256, 10**6)(data)),
    "the widest": _value(256, 2**32 - 1),
    "no columns": _value(256, 0),
    "no rows": _value(257, 0),
    "10^9 strips": _many_strips,
    "65535 bits": _value(258, 65535),
    "60000 channels": _value(277, 60000),
    "a ring of pages": _cyclic,
}


@pytest.mark.parametrize("change", LIES.values(), ids=LIES)
@pytest.mark.parametrize(
    "how",
    [{"metadata": None}, {"compression": "zlib"}, {"imagej": True, "metadata": {"axes": "ZYX"}}],
    ids=["raw", "zip", "ImageJ"],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, how: dict[str, Any], change: Callable[[bytes], bytes]) -> None:
    (tmp_path / "a.tif").write_bytes(change(_written(**how)))
    with pytest.raises(SourceError, match=r"a\.tif") as told:
        whole(open_stack(str(tmp_path / "a.tif")))
    assert told.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        OME.format(z=10**9, more="", planes=""),
        OME.format(z=10**6, more="", planes=""),
        "ImageJ=1.54f\nimages=1000000000\nslices=1000000000\n",
        '{"shape": [1000000000, 14, 23]}',
        "ImageJ=1.54f\nimages=9\nslices=9\n",
    ],
    ids=["OME, 10^9", "OME, 10^6", "ImageJ", "tifffile", "ImageJ, 9 of 5"],
)
def test_planes_that_are_announced_and_lacking(tmp_path: Path, text: str) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", A, compression="zlib", metadata=None, photometric="minisblack", description=text
    )
    with pytest.raises(SourceError, match=r"damaged|missing"):
        open_stack(str(tmp_path / "a.tif"))


def test_whatever_byte_is_wrong_the_error_is_ours(tmp_path: Path) -> None:
    """Anything else would be told as a fault of the program."""
    rng = np.random.default_rng(0)
    files = [
        _written(compression="lzw", metadata=None),
        _written(imagej=True, metadata={"axes": "ZYX", "unit": "um"}),
        _written(ome=True),
    ]
    path = tmp_path / "a.tif"
    for n in range(90):
        data = bytearray(files[n % 3])
        for at in rng.integers(8, min(len(data), 700), 2):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        try:
            stack = open_stack(str(path))
            if np.prod([float(s) for s in stack.shape]) < 1e7:
                whole(stack)
        except (SimexmError, SimexmWarning):
            pass


def test_slices_that_are_jpegs_in_a_tiff_are_refused(tmp_path: Path) -> None:
    folder = write_slices(tmp_path / "s", A, "slice_{}.tif")
    tifffile.imwrite(folder / "slice_10.tif", GREY[0], compression="jpeg")
    with pytest.raises(SourceError, match=r"slice_10\.tif is compressed by JPEG"):
        open_stack(str(folder))


def test_a_size_is_exact(tmp_path: Path) -> None:
    """A third has no end, and what two numbers of 32 bits hold of it is told to nine digits."""
    tifffile.imwrite(tmp_path / "a.tif", A, **_imagej("unit=um\nspacing=0.0333\n", resolution=(30, 27.3)))
    z, y, x = open_stack(str(tmp_path / "a.tif")).voxel_size_nm or ZERO
    assert (z, x) == (Fraction("33.3"), Fraction("33.3333333"))
    assert float(y) == pytest.approx(1000 / 27.3, rel=1e-8)
