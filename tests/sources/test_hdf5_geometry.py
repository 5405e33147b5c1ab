"""HDF5 of other programs: sizes and positions are read in whatever unit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.errors import SpecError
from simexm.geometry.grid import exact3
from simexm.sources.opening import open_stack
from simexm.sources.stack import size_and_origin
from simexm.sources.words import COMMAND, speaking
from tests.sources.hdf5_files import BEGIN, SIZE, UM, A, Make, attributed, open_made, scaled, stored, tags
from tests.sources.volumes import SHAPE, whole


def _coordinates(file: h5py.File) -> None:
    scaled(file, "zyx", "nanometers")


def _axis_units(file: h5py.File) -> None:
    data = stored(file, "tzyxc", "exported_data")
    data.attrs["axistags"] = tags("tzyxc", z=UM[0], y=UM[1], x=UM[2])
    data.attrs["axis_units"] = json.dumps({"z": "µm", "y": "micron", "x": "um"})


SIZED: dict[str, tuple[Make, bool]] = {
    "CREMI": (attributed({"resolution": (40.0, 4.0, 3.5), "offset": (80, 12, 7)}), True),
    "units": (attributed({"resolution": UM, "offset": (0.08, 0.012, 0.007), "units": ["um"] * 3}), True),
    "float32": (attributed({"resolution": np.array(UM, "f4")}, units=np.bytes_("um")), False),
    "unit": (attributed({"resolution": UM}, unit=np.array([b"um"] * 3)), False),
    "one text of units": (attributed({"resolution": UM}, units="um, um, um"), False),
    "root": (attributed({"resolution": (40.0, 4.0, 3.5), "offset": (80, 12, 7)}, "/"), True),
    "group": (attributed({"element_size_um": UM}, "volumes"), False),
    "funlib": (attributed({"voxel_size": [40.0, 4.0, 3.5], "offset": [80, 12, 7]}, units=["nm"] * 3), True),
    "stored x y z": (attributed({"resolution": (3.5, 4.0, 40.0), "offset": (7, 12, 80)}, order="xyz"), True),
    "all axes": (attributed({"resolution": (1.0, 3.5, 4.0, 40.0)}, order="cxyz"), False),
    "element_size_um": (attributed({"element_size_um": UM}), False),
    "two that agree": (attributed({"element_size_um": UM, "resolution": (40.0, 4.0, 3.5)}), False),
    "coordinates": (_coordinates, True),
    "axistags": (_axis_units, False),
}


@pytest.mark.parametrize(("make", "placed"), SIZED.values(), ids=SIZED)
def test_sizes_and_positions(tmp_path: Path, make: Make, placed: bool) -> None:
    stack = open_made(tmp_path, make)
    assert stack.voxel_size_nm == SIZE
    assert stack.origin_nm == (BEGIN if placed else exact3((0, 0, 0)))


def _uneven(file: h5py.File) -> None:
    _coordinates(file)
    file["y"][3] += 1


DOUBTFUL: dict[str, tuple[Make, str]] = {
    "pixels": (attributed({"resolution": UM}, units="pixel"), "is in pixel"),
    "zero": (attributed({"resolution": (0, 4, 4)}), "positive size"),
    "text": (attributed({"resolution": "4 nm"}), "these are no lengths"),
    "two": (attributed({"resolution": (40, 4)}), "has 2 values"),
    "apart": (
        attributed({"element_size_um": UM, "resolution": UM}),
        "but the attribute 'element_size_um' says 40 x 4 x 3.5",
    ),
    "turned": (attributed({"element_size_um": UM}, order="xyz"), "z, y, x by definition"),
    "uneven": (_uneven, "coordinate '/y' does not go up in equal steps"),
}


@pytest.mark.parametrize(("make", "told"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_size_that_leaves_a_doubt_has_to_be_given(tmp_path: Path, make: Make, told: str) -> None:
    stack = open_made(tmp_path, make)
    with speaking(COMMAND), pytest.raises(SpecError, match=re.escape(told) + ".*--voxel-size"):
        size_and_origin(stack, None)
    assert size_and_origin(stack, SIZE)[0] == SIZE


_XML = """<SpimData><SequenceDescription>
<ImageLoader format="bdv.hdf5"><hdf5 type="relative">{name}</hdf5></ImageLoader>
<ViewSetups><ViewSetup><id>0</id><voxelSize><unit>{unit}</unit><size>9 9 9</size></voxelSize></ViewSetup>
<ViewSetup><id>1</id><voxelSize><unit>{unit}</unit><size>0.0035 0.004 0.04</size></voxelSize></ViewSetup></ViewSetups>
</SequenceDescription><ViewRegistrations><ViewRegistration timepoint="0" setup="1">
<ViewTransform type="affine"><affine>1 0 0 0.00875 0 1 0 0.014 0 0 1 0.1</affine></ViewTransform>
<ViewTransform type="affine"><affine>{scale}</affine></ViewTransform></ViewRegistration></ViewRegistrations></SpimData>"""
_CALIBRATED = "0.0035 0 0 0 0 0.004 0 0 0 0 0.04 0"


def _partitioned(file: h5py.File) -> None:
    """As BigStitcher cuts a large export into files."""
    _bdv(file)
    with h5py.File(Path(file.filename).with_name("a-00.h5"), "w") as part:
        file.copy("t00000/s01", part, "part")
    del file["t00000/s01"]
    file["t00000/s01"] = h5py.ExternalLink("a-00.h5", "part")


def _bdv(file: h5py.File) -> None:
    file["s01/resolutions"] = [[1.0, 1.0, 1.0], [2.0, 2.0, 1.0]]
    file["t00000/s01/0/cells"] = A.astype("u2").view("i2")
    file["t00000/s01/1/cells"] = A[:, ::2, ::2].astype("u2").view("i2")


@pytest.mark.parametrize(("name", "make"), [("a.xml", _bdv), ("dataset.xml", _bdv), ("a.xml", _partitioned)])
def test_bigdataviewer(tmp_path: Path, name: str, make: Make) -> None:
    (tmp_path / "another.xml").write_text(_XML.format(name="b.h5", unit="nm", scale=_CALIBRATED))
    (tmp_path / name).write_text(_XML.format(name="a.h5", unit="um", scale=_CALIBRATED))
    stack = open_made(tmp_path, make)
    np.testing.assert_array_equal(whole(stack), A.astype("u2"))
    assert (stack.voxel_size_nm, stack.origin_nm) == (SIZE, BEGIN)
    coarse = open_stack(str(tmp_path / "a.h5"), dataset="t00000/s01/1/cells")
    assert coarse.voxel_size_nm == exact3((40, 8, 7))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "a.xml, which is missing"),
        (_XML.format(name="a.h5", unit="pixel", scale=_CALIBRATED), "'pixel'"),
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + _XML.format(name="a.h5", unit="um", scale=_CALIBRATED), "missing"),
        (_XML.format(name="a.h5", unit="um", scale=_CALIBRATED).replace("<id>1", "<id>7"), "the setup 1"),
        (_XML.format(name="a.h5", unit="um", scale=_CALIBRATED).replace("0.0035 0.004 0.04<", "1e999999999 1 1<"), "the setup 1"),
    ],
    ids=["missing", "pixels", "entities", "setup", "huge"],
)  # fmt: skip
def test_bigdataviewer_whose_size_is_not_certain(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "a.xml").write_text(text)
    with pytest.raises(SpecError, match=re.escape(told)):
        size_and_origin(open_made(tmp_path, _bdv), None)


def test_a_position_in_no_lengths_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(_XML.format(name="a.h5", unit="um", scale="1 0 0 0 0 1 0 0 0 0 1 0"))
    stack = open_made(tmp_path, _bdv)
    assert (stack.voxel_size_nm, stack.origin_nm) == (SIZE, exact3((0, 0, 0)))


def _letters(text: str) -> NDArray[np.bytes_]:
    return np.array([c.encode() for c in text])


def _imaris(file: h5py.File) -> None:
    image = file.create_group("DataSetInfo/Image")
    image.attrs["Unit"] = _letters("um")
    for i, (begin, step, length) in enumerate(zip(BEGIN[::-1], SIZE[::-1], SHAPE[::-1], strict=True)):
        image.attrs[f"ExtMin{i}"] = _letters(f"{float(begin) / 1000:.6f}")
        image.attrs[f"ExtMax{i}"] = _letters(f"{float(begin + step * length) / 1000:.6f}")
    for level, part in enumerate((A, A[:, ::2, ::2])):
        channel = file.create_group(f"DataSet/ResolutionLevel {level}/TimePoint 0/Channel 0")
        for axis, length in zip("ZYX", part.shape, strict=True):
            channel.attrs[f"ImageSize{axis}"] = _letters(str(length))
        channel["Data"] = np.pad(part, ((0, 3), (0, 2), (0, 9)), constant_values=5)
        channel["Histogram"] = np.zeros(256)


def test_imaris_is_cut_to_its_size(tmp_path: Path) -> None:
    stack = open_made(tmp_path, _imaris)
    np.testing.assert_array_equal(whole(stack), A)
    assert (stack.voxel_size_nm, stack.origin_nm) == (SIZE, BEGIN)
