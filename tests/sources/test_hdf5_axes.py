"""HDF5 of other programs: names of axes are heeded, and a doubt is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest

from simexm.errors import SimexmWarning, SourceError
from simexm.sources.opening import open_stack
from tests.sources.hdf5_files import BEGIN, SIZE, A, holding, open_made, scaled, stored, tags
from tests.sources.volumes import SHAPE, whole


def _ilastik(file: h5py.File, order: str) -> None:
    stored(file, order, "exported_data").attrs["axistags"] = tags(order)


def _labelled(file: h5py.File, order: str) -> None:
    data = stored(file, order)
    for i, a in enumerate(order):
        data.dims[i].label = a.upper()


def _cf(file: h5py.File, order: str) -> None:
    data = stored(file, order)
    for i, a in enumerate(order):
        name = f"axis {a} of the stage"
        file[name] = np.arange(data.shape[i])
        file[name].make_scale()
        file[name].attrs["axis"] = np.bytes_(a.upper())
        data.dims[i].attach_scale(file[name])


def _attributed(value: Callable[[str], Any], name: str = "axes") -> Callable[[h5py.File, str], None]:
    def make(file: h5py.File, order: str) -> None:
        stored(file, order).attrs[name] = value(order)

    return make


def _group(file: h5py.File, order: str) -> None:
    stored(file, order, "volumes/labels")
    file["volumes"].attrs["axis_names"] = list(order)


NAMED: dict[str, Callable[[h5py.File, str], None]] = {
    "axistags": _ilastik,
    "dimension labels": _labelled,
    "dimension scales": scaled,
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
    np.testing.assert_array_equal(whole(open_made(tmp_path, lambda file: make(file, order))), A)


def test_axes_of_length_one_without_names(tmp_path: Path) -> None:
    np.testing.assert_array_equal(whole(open_made(tmp_path, lambda file: stored(file, "tzyxc"))), A)
    for shape in ((1, 14, 23, 1), (2, *SHAPE)):
        with pytest.raises(SourceError, match="nothing says which axes are z, y and x"):
            open_made(tmp_path, holding(np.ones(shape, "u1")))


def test_names_that_say_nothing_do_not_count(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        data = stored(file, "zyx")
        data.attrs["axistags"] = tags("???")
        data.attrs["_ARRAY_DIMENSIONS"] = ["dim_0", "dim_1", "dim_2"]

    np.testing.assert_array_equal(whole(open_made(tmp_path, make)), A)


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"axistags": tags("xyz"), "axes": "zyx"}, "axistags says that the axes are x, y, z, but the attribute 'axes' says z, y, x"),
        ({"axes": ["row", "column", "plane"]}, "needs z, y and x once each"),
        ({"axes": ["z", "y"]}, "names 2 axes"),
    ],
)  # fmt: skip
def test_names_that_leave_a_doubt_are_refused(tmp_path: Path, attributes: dict[str, Any], told: str) -> None:
    with pytest.raises(SourceError, match=re.escape(told)):
        open_made(tmp_path, lambda file: stored(file, "zyx").attrs.update(attributes))


def test_a_matlab_array_is_a_stack_of_images(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        file["#refs#/a"] = np.ones((2, 2, 2))
        file["seg"] = A.transpose(0, 2, 1)  # V(y, x, z): MATLAB's first index runs fastest
        for node in file["#refs#/a"], file["seg"]:
            node.attrs["MATLAB_class"] = np.bytes_("uint32")

    with pytest.warns(SimexmWarning, match=r"MATLAB array of 14 x 23 x 5.*V\(y, x, z\).*permute"):
        np.testing.assert_array_equal(whole(open_made(tmp_path, make, "seg")), A)

    def named(file: h5py.File) -> None:
        _labelled(file, "yxz")
        file["labels"].attrs["MATLAB_class"] = np.bytes_("uint32")

    np.testing.assert_array_equal(whole(open_made(tmp_path, named)), A)


def test_a_numpy_array_that_python_wrote_for_matlab(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:  # as hdf5storage does
        file["seg"] = A.T
        file["seg"].attrs.update({"MATLAB_class": np.bytes_("uint32"), "Python.Shape": np.array(SHAPE, "u8")})

    np.testing.assert_array_equal(whole(open_made(tmp_path, make)), A)


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
        whole(open_made(tmp_path, make))


def test_packed_values_are_no_ids(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'scale_factor'"):
        open_made(tmp_path, lambda file: stored(file, "zyx").attrs.update({"scale_factor": 0.5}))
