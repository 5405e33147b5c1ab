"""HDF5 as other programs write it: axes, sizes and positions are read, and what is missing is no zero."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from simexm.cli import app
from simexm.errors import SimexmWarning, SourceError, SourceNotFoundError, SpecError
from simexm.grid import exact3
from simexm.sources import hdf5_file
from simexm.sources.ingest import ingest
from simexm.sources.opening import open_stack
from simexm.sources.stack import Stack, size_and_origin
from tests.sources.volumes import SHAPE, ids, whole

A = ids("uint32")
SIZE = exact3((40, 4, 3.5))
UM = (0.04, 0.004, 0.0035)
BEGIN = exact3((80, 12, 7))
Make = Callable[[h5py.File], Any]


def _file(path: Path, make: Make, name: str = "a.h5") -> str:
    with h5py.File(path / name, "w") as file:
        make(file)
    return str(path / name)


def _open(path: Path, make: Make, dataset: str | None = None) -> Stack:
    return open_stack(_file(path, make), dataset=dataset)


def _data(value: Any, name: str = "labels", **options: Any) -> Make:
    return lambda file: file.create_dataset(name, data=value, **options)


def _stored(file: h5py.File, order: str, name: str = "labels") -> h5py.Dataset:
    """A data set whose axes are in this order; others than z, y, x are of length 1."""
    axes = np.transpose(A, ["zyx".index(a) for a in order if a in "zyx"])
    return file.create_dataset(name, data=axes.reshape([SHAPE["zyx".index(a)] if a in "zyx" else 1 for a in order]))


def _tags(order: str, **resolution: float) -> str:
    return json.dumps({"axes": [{"key": a, "typeFlags": 2, "resolution": resolution.get(a, 0)} for a in order]})


def _ilastik(file: h5py.File, order: str) -> None:
    _stored(file, order, "exported_data").attrs["axistags"] = _tags(order)


def _labelled(file: h5py.File, order: str) -> None:
    data = _stored(file, order)
    for i, a in enumerate(order):
        data.dims[i].label = a.upper()


def _scaled(file: h5py.File, order: str, unit: str = "") -> None:
    """With a unit: the coordinates of voxels of SIZE that begin at BEGIN."""
    data = _stored(file, order)
    for i, a in enumerate(order):
        first, step = (float(BEGIN["zyx".index(a)]), float(SIZE["zyx".index(a)])) if unit else (0, 1)
        file[a] = first + step * (np.arange(data.shape[i]) + 0.5 * bool(unit))
        file[a].attrs["units"] = unit
        file[a].make_scale(a)
        data.dims[i].attach_scale(file[a])


def _cf(file: h5py.File, order: str) -> None:
    data = _stored(file, order)
    for i, a in enumerate(order):
        name = f"axis {a} of the stage"
        file[name] = np.arange(data.shape[i])
        file[name].make_scale()
        file[name].attrs["axis"] = np.bytes_(a.upper())
        data.dims[i].attach_scale(file[name])


def _attributed(value: Callable[[str], Any], name: str = "axes") -> Callable[[h5py.File, str], None]:
    def make(file: h5py.File, order: str) -> None:
        _stored(file, order).attrs[name] = value(order)

    return make


def _group(file: h5py.File, order: str) -> None:
    _stored(file, order, "volumes/labels")
    file["volumes"].attrs["axis_names"] = list(order)


NAMED: dict[str, Callable[[h5py.File, str], None]] = {
    "axistags": _ilastik,
    "dimension labels": _labelled,
    "dimension scales": _scaled,
    "CF axis": _cf,
    "axes": _attributed(list),
    "bytes": _attributed(lambda order: np.array([a.encode() for a in order]), "axis_names"),
    "one text": _attributed(lambda order: order),
    "comma": _attributed(lambda order: np.bytes_(", ".join(order)), "axis_order"),
    "JSON": _attributed(lambda order: json.dumps(list(order)), "dimension_names"),
    "xarray": _attributed(list, "_ARRAY_DIMENSIONS"),
    "group": _group,
}


@pytest.mark.parametrize("make", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize("order", ["xyz", "yzx", "tzyxc"])
def test_names_of_axes_are_heeded(tmp_path: Path, make: Callable[[h5py.File, str], None], order: str) -> None:
    np.testing.assert_array_equal(whole(_open(tmp_path, lambda file: make(file, order))), A)


def test_axes_of_length_one_without_names(tmp_path: Path) -> None:
    np.testing.assert_array_equal(whole(_open(tmp_path, lambda file: _stored(file, "tzyxc"))), A)
    for shape in ((1, 14, 23, 1), (2, *SHAPE)):
        with pytest.raises(SourceError, match="nothing says which axes are z, y and x"):
            _open(tmp_path, _data(np.ones(shape, "u1")))


def test_names_that_say_nothing_do_not_count(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        data = _stored(file, "zyx")
        data.attrs["axistags"] = _tags("???")
        data.attrs["_ARRAY_DIMENSIONS"] = ["dim_0", "dim_1", "dim_2"]

    np.testing.assert_array_equal(whole(_open(tmp_path, make)), A)


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"axistags": _tags("xyz"), "axes": "zyx"}, "axistags says that the axes are x, y, z, but the attribute 'axes' says z, y, x"),
        ({"axes": ["row", "column", "plane"]}, "needs z, y and x once each"),
        ({"axes": ["z", "y"]}, "names 2 axes"),
    ],
)  # fmt: skip
def test_names_that_leave_a_doubt_are_refused(tmp_path: Path, attributes: dict[str, Any], told: str) -> None:
    with pytest.raises(SourceError, match=re.escape(told)):
        _open(tmp_path, lambda file: _stored(file, "zyx").attrs.update(attributes))


def test_a_matlab_array_is_a_stack_of_images(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        file["#refs#/a"] = np.ones((2, 2, 2))
        file["seg"] = A.transpose(0, 2, 1)  # V(y, x, z): MATLAB's first index runs fastest
        for node in file["#refs#/a"], file["seg"]:
            node.attrs["MATLAB_class"] = np.bytes_("uint32")

    with pytest.warns(SimexmWarning, match=r"MATLAB array of 14 x 23 x 5.*V\(y, x, z\).*permute"):
        np.testing.assert_array_equal(whole(_open(tmp_path, make, "seg")), A)

    def named(file: h5py.File) -> None:
        _labelled(file, "yxz")
        file["labels"].attrs["MATLAB_class"] = np.bytes_("uint32")

    np.testing.assert_array_equal(whole(_open(tmp_path, named)), A)


def test_a_numpy_array_that_python_wrote_for_matlab(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:  # as hdf5storage does
        file["seg"] = A.T
        file["seg"].attrs.update({"MATLAB_class": np.bytes_("uint32"), "Python.Shape": np.array(SHAPE, "u8")})

    np.testing.assert_array_equal(whole(_open(tmp_path, make)), A)


def test_netcdf_as_its_own_library_writes_it(tmp_path: Path) -> None:
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(tmp_path / "a.nc", "w") as file:
        for name, length, step, first in zip(
            "xyz", SHAPE[::-1], (0.0035, 0.004, 0.04), (0.00875, 0.014, 0.1), strict=True
        ):
            file.createDimension(name, length)
            axis = file.createVariable(name, "f4", (name,))
            axis.units = "um"
            axis[:] = first + step * np.arange(length)
        file.createVariable("seg", "u4", ("x", "y", "z"), zlib=True)[:] = A.T
    stack = open_stack(str(tmp_path / "a.nc"))
    np.testing.assert_array_equal(whole(stack), A)
    assert (stack.voxel_size_nm, stack.origin_nm) == (SIZE, BEGIN)


@pytest.mark.parametrize("attributes", [{"_FillValue": np.array([7], "u4")}, {"missing_value": np.uint32(7)}])
def test_a_missing_value_is_no_id(tmp_path: Path, attributes: dict[str, Any]) -> None:
    def make(file: h5py.File) -> None:
        file["seg"] = np.where(A.max() == A, 7, A)
        file["seg"].attrs.update(attributes)

    with pytest.raises(SourceError, match="hold 7, which stands for a missing value"):
        whole(_open(tmp_path, make))


def test_packed_values_are_no_ids(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'scale_factor'"):
        _open(tmp_path, lambda file: _stored(file, "zyx").attrs.update({"scale_factor": 0.5}))


# ---- sizes and positions


def _with(size: Any, where: str = "labels", order: str = "zyx", **more: Any) -> Make:
    def make(file: h5py.File) -> None:
        data = _stored(file, order, "volumes/labels" if where != "labels" else where)
        if order != "zyx":
            data.attrs["axes"] = list(order)
        file[where].attrs.update({**size, **more})

    return make


def _coordinates(file: h5py.File) -> None:
    _scaled(file, "zyx", "nanometers")


def _axis_units(file: h5py.File) -> None:
    data = _stored(file, "tzyxc", "exported_data")
    data.attrs["axistags"] = _tags("tzyxc", z=UM[0], y=UM[1], x=UM[2])
    data.attrs["axis_units"] = json.dumps({"z": "µm", "y": "micron", "x": "um"})


SIZED: dict[str, tuple[Make, bool]] = {
    "CREMI": (_with({"resolution": (40.0, 4.0, 3.5), "offset": (80, 12, 7)}), True),
    "units": (_with({"resolution": UM, "offset": (0.08, 0.012, 0.007), "units": ["um"] * 3}), True),
    "float32": (_with({"resolution": np.array(UM, "f4")}, units=np.bytes_("um")), False),
    "unit": (_with({"resolution": UM}, unit=np.array([b"um"] * 3)), False),
    "one text of units": (_with({"resolution": UM}, units="um, um, um"), False),
    "root": (_with({"resolution": (40.0, 4.0, 3.5), "offset": (80, 12, 7)}, "/"), True),
    "group": (_with({"element_size_um": UM}, "volumes"), False),
    "funlib": (_with({"voxel_size": [40.0, 4.0, 3.5], "offset": [80, 12, 7]}, units=["nm"] * 3), True),
    "stored x y z": (_with({"resolution": (3.5, 4.0, 40.0), "offset": (7, 12, 80)}, order="xyz"), True),
    "all axes": (_with({"resolution": (1.0, 3.5, 4.0, 40.0)}, order="cxyz"), False),
    "element_size_um": (_with({"element_size_um": UM}), False),
    "two that agree": (_with({"element_size_um": UM, "resolution": (40.0, 4.0, 3.5)}), False),
    "coordinates": (_coordinates, True),
    "axistags": (_axis_units, False),
}


@pytest.mark.parametrize(("make", "placed"), SIZED.values(), ids=SIZED)
def test_sizes_and_positions(tmp_path: Path, make: Make, placed: bool) -> None:
    stack = _open(tmp_path, make)
    assert stack.voxel_size_nm == SIZE
    assert stack.origin_nm == (BEGIN if placed else exact3((0, 0, 0)))


def _uneven(file: h5py.File) -> None:
    _coordinates(file)
    file["y"][3] += 1


DOUBTFUL: dict[str, tuple[Make, str]] = {
    "pixels": (_with({"resolution": UM}, units="pixel"), "is in pixel, which is no length"),
    "zero": (_with({"resolution": (0, 4, 4)}), "positive size"),
    "text": (_with({"resolution": "4 nm"}), "these are no lengths"),
    "two": (_with({"resolution": (40, 4)}), "has 2 values"),
    "apart": (
        _with({"element_size_um": UM, "resolution": UM}),
        "but the attribute 'element_size_um' says 40 x 4 x 3.5",
    ),
    "turned": (_with({"element_size_um": UM}, order="xyz"), "z, y, x by definition"),
    "uneven": (_uneven, "coordinate '/y' does not go up in equal steps"),
}


@pytest.mark.parametrize(("make", "told"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_size_that_leaves_a_doubt_has_to_be_given(tmp_path: Path, make: Make, told: str) -> None:
    stack = _open(tmp_path, make)
    with pytest.raises(SpecError, match=re.escape(told) + ".*--voxel-size"):
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
    stack = _open(tmp_path, make)
    np.testing.assert_array_equal(whole(stack), A.astype("u2"))
    assert (stack.voxel_size_nm, stack.origin_nm) == (SIZE, BEGIN)
    coarse = open_stack(str(tmp_path / "a.h5"), dataset="t00000/s01/1/cells")
    assert coarse.voxel_size_nm == exact3((40, 8, 7))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "a.xml, which is not there"),
        (_XML.format(name="a.h5", unit="pixel", scale=_CALIBRATED), "'pixel', which is no length"),
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + _XML.format(name="a.h5", unit="um", scale=_CALIBRATED), "not there"),
        (_XML.format(name="a.h5", unit="um", scale=_CALIBRATED).replace("<id>1", "<id>7"), "the setup 1"),
        (_XML.format(name="a.h5", unit="um", scale=_CALIBRATED).replace("0.0035 0.004 0.04<", "1e999999999 1 1<"), "the setup 1"),
    ],
    ids=["missing", "pixels", "entities", "setup", "huge"],
)  # fmt: skip
def test_bigdataviewer_whose_size_is_not_certain(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "a.xml").write_text(text)
    with pytest.raises(SpecError, match=re.escape(told)):
        size_and_origin(_open(tmp_path, _bdv), None)


def test_a_position_in_no_lengths_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(_XML.format(name="a.h5", unit="um", scale="1 0 0 0 0 1 0 0 0 0 1 0"))
    stack = _open(tmp_path, _bdv)
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
    stack = _open(tmp_path, _imaris)
    np.testing.assert_array_equal(whole(stack), A)
    assert (stack.voxel_size_nm, stack.origin_nm) == (SIZE, BEGIN)


# ---- which data set


def test_a_group_of_one_volume_is_that_volume(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        file["raw/em"] = np.zeros(SHAPE)
        file["seg/labels"] = A

    path = _file(tmp_path, make)
    np.testing.assert_array_equal(whole(open_stack(f"{path}/seg")), A)
    with pytest.raises(SourceError, match=r"raw/em \(5 x 14 x 23 float64\), seg/labels \(5 x 14 x 23 uint32\)"):
        open_stack(path)


def test_links_of_all_kinds(tmp_path: Path) -> None:
    _file(tmp_path, _data(A, "there"), "other.h5")

    def make(file: h5py.File) -> None:
        file["g/v"] = A
        file["g/round"] = file["g"]
        file["also"] = h5py.SoftLink("/g/v")
        file["circle"] = h5py.SoftLink("/circle")
        file["nowhere"] = h5py.SoftLink("/no/such")
        file["away"] = h5py.ExternalLink("other.h5", "/there")
        file["lost"] = h5py.ExternalLink("lost.h5", "/there")
        file["pipe"] = h5py.ExternalLink("pipe.h5", "/there")

    os.mkfifo(tmp_path / "pipe.h5")
    path = _file(tmp_path, make)
    for name in ("g", "also", "away", "g/round/round/v"):
        np.testing.assert_array_equal(whole(open_stack(path, dataset=name)), A)
    for name, error, told in [
        ("circle", SourceError, "round in a circle"), ("nowhere", SourceNotFoundError, "link to nothing"),
        ("lost", SourceError, "lost.h5, which is not there"), ("pipe", SourceError, "pipe.h5, which is not there"),
    ]:  # fmt: skip
        with pytest.raises(error, match=told):
            open_stack(path, dataset=name)


def test_names_of_all_kinds(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        for name in ("two\nlines", "x" * 5000, b"latin-1 \xe9"):
            file[name] = A

    with pytest.raises(SourceError, match=r"volumes two\?lines \(.*, x{200} \([^)]*\)\. Name one") as told:
        _open(tmp_path, make)
    assert "\n" not in str(told.value)


def test_more_objects_than_can_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_file, "_MOST_OBJECTS", 50)

    def make(file: h5py.File) -> None:
        file["v"] = A
        for n in range(51):
            file[str(n)] = h5py.SoftLink("/v")

    path = _file(tmp_path, make)
    with pytest.raises(SourceError, match="over 50 objects"):
        open_stack(path)
    assert open_stack(path, dataset="v").shape == SHAPE


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.full((2, 2, 2), "a", h5py.string_dtype()), "holds text"), (np.zeros((2, 2, 2), [("a", "u4")]), "holds records"),
        (np.zeros((2, 2, 2), "c8"), "holds complex64"), (np.zeros((2, 2)), "has 2 axes"), (np.zeros((2, 0, 2)), "is empty"),
        (h5py.Empty("u4"), "is empty"), (3, "has 0 axes"),
    ],
)  # fmt: skip
def test_what_is_no_volume(tmp_path: Path, value: Any, told: str) -> None:
    path = _file(tmp_path, _data(value, "a"))
    with pytest.raises(SourceError, match=told):
        open_stack(path, dataset="a")
    with pytest.raises(SourceError, match="no labels in it"):
        open_stack(path)


def test_groups_nested_without_end(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        node = file
        for _ in range(300):
            node = node.create_group("a")
        node["labels"] = A

    path = _file(tmp_path, make)
    with pytest.raises(SourceError, match="no labels in it"):
        open_stack(path)
    np.testing.assert_array_equal(whole(open_stack(path, dataset="a/" * 300 + "labels")), A)


# ---- what is missing


def test_a_virtual_data_set_needs_its_sources(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "u4")
    for z in range(SHAPE[0]):
        _file(tmp_path, _data(A[z], "part"), f"{z}.h5")
        layout[z] = h5py.VirtualSource(f"{z}.h5", "part", SHAPE[1:])
    path = _file(tmp_path, lambda file: file.create_virtual_dataset("labels", layout, fillvalue=0))
    stack = open_stack(path)
    np.testing.assert_array_equal(whole(stack), A)
    (tmp_path / "3.h5").rename(tmp_path / "gone.h5")
    with pytest.raises(SourceError, match=r"3\.h5, which holds a part of it, is no longer there"):
        whole(stack)
    with pytest.raises(SourceError, match=r"3\.h5 is not there; its voxels would count as 0"):
        open_stack(path)
    _file(tmp_path, _data(A[3], "other"), "3.h5")
    with pytest.raises(SourceError, match=r"'part' in .* is not there, or smaller"):
        open_stack(path)
    _file(tmp_path, _data(A[3, 1:], "part"), "3.h5")
    with pytest.raises(SourceError, match="smaller than it says"):
        open_stack(path)


def test_numbers_outside_the_file(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        file.create_dataset("labels", data=A, external=[(str(tmp_path / "raw.bin"), 0, A.nbytes)])

    with pytest.raises(SourceError, match=r"outside the file, in .*raw\.bin"):
        _open(tmp_path, make)


def test_what_was_never_written(tmp_path: Path) -> None:
    def make(fill: int, part: slice) -> Make:
        def write(file: h5py.File) -> None:
            data = file.create_dataset("labels", SHAPE, "u4", chunks=(1, 14, 23), fillvalue=fill)
            data[part] = A[part]

        return write

    with pytest.raises(SourceError, match="nothing was ever written"):
        _open(tmp_path, make(0, slice(0)))
    with pytest.raises(SourceError, match="3 of 5 chunks were written, and HDF5 would give the others as the id 9"):
        _open(tmp_path, make(9, slice(3)))
    np.testing.assert_array_equal(whole(_open(tmp_path, make(0, slice(3))))[3:], 0)  # HDF5 itself says so


def test_a_chunk_that_no_memory_holds(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        data = file.create_dataset("labels", (3000, 3000, 3000), "u8", chunks=(900, 900, 900), compression="gzip")
        data.id.write_direct_chunk((0, 0, 0), b"x")

    with pytest.raises(SourceError, match=r"chunks of 900 x 900 x 900, each 5\.43 GiB"):
        _open(tmp_path, make)


def test_a_shape_that_nobody_filled(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        file.create_dataset("labels", (10**6,) * 3, "u8", chunks=(64,) * 3)[0, 0, 0] = 1

    with pytest.raises(SourceError, match="takes 3814697265625 chunks of 64 x 64 x 64"):
        _open(tmp_path, make)


def test_a_chunk_that_the_index_lost(tmp_path: Path) -> None:
    """Bits of the index are flipped in turn: it tells which chunk lies where, and has no checksum."""
    a = np.ones((4, 3, 2), "u1")
    path = Path(_file(tmp_path, _data(a, chunks=(1, 3, 2), compression="gzip")))
    good = path.read_bytes()
    keys = good.index(b"TREE\1") + 24
    lost = 0
    for bit in range(0, 8 * 4 * 48, 17):
        bad = bytearray(good)
        bad[keys + bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        try:
            read = whole(open_stack(str(path)))
        except SourceError:
            lost += 1
            continue
        assert read.all()
    assert lost > 20


# ---- filters


def _filtered(file: h5py.File, code: int, values: tuple[int, ...] = ()) -> None:
    """A data set as a program with this filter writes it, which need not be installed here."""
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk(SHAPE)
    created.set_filter(code, h5py.h5z.FLAG_OPTIONAL, values)
    data = h5py.h5d.create(file.id, b"labels", h5py.h5t.NATIVE_UINT32, h5py.h5s.create_simple(SHAPE), created)
    data.write_direct_chunk((0, 0, 0), A.tobytes())


def test_a_filter_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(SourceError, match=r"lz4 \(HDF5 filter 32004\).*pip install hdf5plugin"):
        _open(tmp_path, lambda file: _filtered(file, 32004))


@pytest.mark.parametrize(("code", "name"), [(32013, "zfp"), (32017, "SZ"), (32100, "unknown")])
def test_a_filter_that_may_change_numbers_is_refused(tmp_path: Path, code: int, name: str) -> None:
    with pytest.raises(SourceError, match=rf"{name}.*may change numbers"):
        _open(tmp_path, lambda file: _filtered(file, code))


@pytest.mark.parametrize(
    "options",
    [{"compression": "gzip", "shuffle": True, "fletcher32": True}, {"compression": "lzf"}, {"scaleoffset": 0}],
)
def test_filters_of_hdf5_and_h5py(tmp_path: Path, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(whole(_open(tmp_path, _data(A, **options))), A)


def test_a_scale_offset_of_few_bits_is_lossy(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="may change numbers"):
        _open(tmp_path, _data(A, scaleoffset=5))


@pytest.mark.slow
def test_filters_of_hdf5plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hdf5plugin")
    monkeypatch.delenv("HDF5_PLUGIN_PATH", raising=False)  # netCDF4 sets it to filters of its own
    write = "import sys, h5py, hdf5plugin, numpy as np; f = h5py.File(sys.argv[1], 'w'); a = np.arange(120, dtype='u4').reshape(4, 5, 6); "
    write += "[f.create_dataset(n, data=a, chunks=a.shape, **getattr(hdf5plugin, n)()) for n in sys.argv[2:]]"
    read = "import sys; from simexm.sources.opening import open_stack; from simexm.grid import Box; "
    read += "print([int(open_stack(sys.argv[1], dataset=n).read(Box.of_shape((4, 5, 6))).sum()) for n in sys.argv[2:]])"
    names = ["Blosc", "LZ4", "Zstd", "Bitshuffle", "Blosc2"]
    for code in write, read:  # processes of their own, as a filter stays registered
        command = [sys.executable, "-c", code, str(tmp_path / "a.h5"), *names]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == [119 * 120 // 2] * len(names)


# ---- files that others hold, or that are damaged


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Path]:
    """A file that another program has open for writing."""
    path = Path(_file(tmp_path, _data(A)))
    code = (
        "import h5py, sys; f = h5py.File(sys.argv[1], 'r+', locking=True); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield path
        process.communicate("")


def test_a_lock_is_no_damage(writer: Path) -> None:
    with pytest.warns(SimexmWarning, match="open for writing in another program"):
        stack = open_stack(str(writer))
    np.testing.assert_array_equal(whole(stack), A)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There flock fails, for HDF5 and for us."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no compiler")
    (tmp_path / "nolock.c").write_text("#include <errno.h>\nint flock(int fd, int op) { errno = ENOLCK; return -1; }\n")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(tmp_path / "nolock.so"), str(tmp_path / "nolock.c")], check=True
    )
    path = _file(tmp_path, _data(A))
    read = "import sys; from simexm.sources.opening import open_stack; print(open_stack(sys.argv[1]).shape)"
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "nolock.so"))
    told = subprocess.run([sys.executable, "-c", read, path], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(SHAPE)


def test_this_process_has_it_open_itself(tmp_path: Path) -> None:
    path = _file(tmp_path, _data(A))
    with h5py.File(path, "r"):
        np.testing.assert_array_equal(whole(open_stack(path)), A)


def test_a_writer_that_was_killed(tmp_path: Path) -> None:
    code = "import h5py, os, sys; f = h5py.File(sys.argv[1], 'w', libver='latest'); f['labels'] = [[[1]]]; f.flush(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.h5")], check=True)
    with pytest.raises(SourceError, match=r"marked as open for writing.*h5clear -s"):
        open_stack(str(tmp_path / "a.h5"))


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    stack = open_stack(_file(tmp_path, _data(A)))
    time.sleep(0.01)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["labels"][0] = 1
    with pytest.raises(SourceError, match="changed while it was read"):
        whole(stack)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "load('a.mat'); save('labels.mat', 'V', '-v7.3')"),
        (b"CDF\x01\0\0\0\0", "nccopy -k netCDF-4"), (b"CDF\x05\0\0\0\0", "nccopy -k netCDF-4"),
    ],
)  # fmt: skip
def test_older_formats_are_told_by_name(tmp_path: Path, head: bytes, told: str) -> None:
    (tmp_path / "a.mat").write_bytes(head.ljust(512))
    with pytest.raises(SourceError, match=re.escape(told)):
        open_stack(str(tmp_path / "a.mat"))


def test_bits_that_flip_are_told_or_harmless(tmp_path: Path) -> None:
    """With a checksum on each chunk, a flipped bit never gives another volume: not where chunks are listed either."""
    path = Path(
        _file(
            tmp_path,
            _data(A, chunks=(2, 14, 23), compression="gzip", fletcher32=True),
        )
    )
    good, random = path.read_bytes(), np.random.default_rng(5)
    for n in range(60):
        bad = bytearray(good)
        bad[random.integers(len(bad))] ^= 1 << int(random.integers(8))
        flipped = tmp_path / f"{n}.h5"
        flipped.write_bytes(bad)
        try:
            stack = open_stack(str(flipped))
            read = whole(stack)
        except SourceError:
            continue
        np.testing.assert_array_equal(read, A)


def _circle(file: h5py.File) -> None:
    file["labels"] = h5py.SoftLink("/labels")


@pytest.mark.parametrize(
    "make",
    [_circle, _with({"resolution": UM}, units="pixel"), lambda file: _filtered(file, 32013), _data("text")],
    ids=["link", "unit", "lossy", "text"],
)
def test_bad_input_is_told_on_the_command_line_in_one_line(tmp_path: Path, make: Make) -> None:
    path = _file(tmp_path, make)
    told = CliRunner().invoke(app, ["ingest", path, str(tmp_path / "a.zarr"), "--dataset", "labels"])
    assert told.exit_code == 2
    assert told.stderr.startswith(f"error: {path}")
    assert told.stderr.count("\n") == 1
    assert not (tmp_path / "a.zarr").exists()


def test_ids_of_an_hdf5_come_through_ingest(tmp_path: Path) -> None:
    path = _file(tmp_path, _with({"resolution": UM[::-1], "units": "um"}, order="xyz"))
    made = ingest(path, tmp_path / "a.zarr")
    assert (made.shape, made.largest_id, made.voxel_size_nm) == (SHAPE, A.max(), SIZE)
