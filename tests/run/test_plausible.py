"""A mistaken unit stops before anything is computed, and messages say what to type where it was typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
import zarr
from typer.testing import CliRunner, Result

from simexm.api import Simulation
from simexm.cli import app
from simexm.errors import SpecError
from simexm.run.in_memory import simulate
from tests.build import spec

LABELS = np.pad(np.ones((10, 10, 10), np.uint64), 3)


def type_in(*words: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.mark.parametrize(
    ("nm", "told"),
    [
        ((0.04, 0.032, 0.032), "larger than an atom"),
        ((40e9, 32e9, 32e9), "larger than an atom"),
        ((0.4, 0.32, 0.32), "a single pixel"),
    ],
    ids=["smaller than an atom", "larger than a millimetre", "one pixel"],
)
def test_a_size_that_cannot_be_meant_stops(tmp_path: Path, nm: tuple[float, float, float], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        simulate(LABELS, Simulation.from_mapping(spec()), voxel_size_nm=nm)
    zarr.create_array(tmp_path / "a.zarr", shape=LABELS.shape, dtype="uint64")[...] = LABELS
    data: dict[str, Any] = spec() | {"source": {"path": f"{tmp_path}/a.zarr", "voxel_size_nm": list(nm)}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(data))
    done = type_in("plan", tmp_path / "my.yaml")
    assert done.exit_code == 2
    assert told in done.stderr
    assert "voxel_size_nm: [z, y, x]" in done.stderr


def test_what_to_type_follows_what_was_typed(tmp_path: Path) -> None:
    """The same Zarr, named in a spec and after a command."""
    group = zarr.create_group(tmp_path / "two.zarr")
    for name in "ab":
        group.create_array(name, shape=LABELS.shape, dtype="uint64")[...] = LABELS
    for source, option, key in (
        ({"path": f"{tmp_path}/two.zarr"}, "--dataset NAME", "dataset: NAME"),
        ({"path": f"{tmp_path}/two.zarr", "dataset": "a"}, "--voxel-size Z Y X", "voxel_size_nm: [z, y, x]"),
    ):
        (tmp_path / "my.yaml").write_text(yaml.safe_dump(spec() | {"source": source}))
        as_spec = type_in("plan", tmp_path / "my.yaml")
        more = [w for name, value in source.items() if name != "path" for w in (f"--{name}", value)]
        as_command = type_in("ingest", source["path"], "-o", tmp_path / "out.zarr", *more)
        assert (as_spec.exit_code, as_command.exit_code) == (2, 2)
        assert key in as_spec.stderr
        assert option not in as_spec.stderr
        assert option in as_command.stderr
        assert "source:" not in as_command.stderr


def test_a_mask_is_spoken_of_in_the_words_of_the_command(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LABELS)
    group = zarr.create_group(tmp_path / "two.zarr")
    for name in "ab":
        group.create_array(name, shape=LABELS.shape, dtype="uint64")[...] = LABELS
    done = type_in(
        "ingest",
        tmp_path / "a.tif",
        "-o",
        tmp_path / "o.zarr",
        "--voxel-size",
        40,
        32,
        32,
        "--region",
        f"syn={tmp_path}/two.zarr",
    )
    assert done.exit_code == 2
    assert "--dataset NAME" in done.stderr
