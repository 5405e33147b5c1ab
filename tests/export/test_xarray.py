"""Results as xarray: values, axes and coordinates are those of the result, and nothing is read before it is used."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from simexm.errors import OutputError
from simexm.result.result import Result
from tests.export.conftest import counts as stack
from tests.export.test_movie_files import STEP_S, counts, make_movie

pytest.importorskip("xarray")


def test_a_movie_has_times_channels_and_places(tmp_path: Path) -> None:
    found = make_movie(tmp_path / "movie.zarr", counts(c=2), names=("a", "b")).to_xarray()
    assert found.dims == ("t", "c", "z", "y", "x")
    assert type(found.data).__module__.startswith("dask")
    np.testing.assert_array_equal(found.sel(c="b").isel(z=0).values, counts(c=2)[:, 1])
    np.testing.assert_allclose(found["t"], STEP_S * np.arange(21))
    np.testing.assert_allclose(found["y"], 41 + 2 * np.arange(18))
    assert (found["t"].attrs["units"], found["x"].attrs["units"], float(found["x"][0])) == ("s", "um", 31)


def test_minian_reads_it_by_its_own_names(tmp_path: Path) -> None:
    found = make_movie(tmp_path / "movie.zarr", counts()).to_xarray(names="minian")
    assert found.dims == ("frame", "height", "width")
    assert found["frame"].values.tolist() == list(range(21))
    np.testing.assert_array_equal(found.values, counts()[:, 0])


def test_volumes_and_labels_have_their_own_axes(small: Result) -> None:
    found = small.to_xarray(1)
    assert found.dims == ("c", "z", "y", "x")
    np.testing.assert_array_equal(found.values, stack()[:, ::2, ::2, ::2])
    np.testing.assert_allclose(np.diff(found["x"]), 0.08)


def test_what_cannot_be_given_is_refused(small: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="one plane and channel"):
        small.to_xarray(names="minian")
    with pytest.raises(OutputError, match="unknown"):
        small.to_xarray(names="caiman")
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(OutputError, match=r"simexm\[movies\]"):
        small.to_xarray()
