"""A phantom by its description is read like a stored volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simexm.analysis.volume import Volume
from simexm.errors import SourceError, SpecError
from simexm.geometry.grid import Box
from simexm.sources.opening import open_stack
from simexm.sources.phantom import Phantom

TEXT = "kind: phantom\nshape: [12, 20, 20]\nseed: 4\n"


def test_ids_and_fields_are_those_of_the_phantom(tmp_path: Path) -> None:
    (tmp_path / "tissue.yaml").write_text(TEXT)
    (tmp_path / "spec.yaml").write_text("name: x\nsource: {kind: phantom, shape: [12, 20, 20], seed: 4}\nstages: []\n")
    box = Box((2, 3, 4), (9, 19, 20))
    volume = Phantom(shape=(12, 20, 20), seed=4).open()
    for name in ("tissue.yaml", "spec.yaml"):
        stack = open_stack(str(tmp_path / name))
        assert (stack.shape, stack.voxel_size_nm) == (volume.shape, volume.voxel_size_nm)
        assert np.array_equal(stack.read(box), volume.read(box))
        field = open_stack(str(tmp_path / name), dataset="compartment")
        assert field.dtype == np.uint8
        assert np.array_equal(field.read(box), volume.read_field("compartment", box))
    one, other = (Volume(str(tmp_path / "tissue.yaml"), dataset) for dataset in (None, "compartment"))
    assert one.identity == Volume(str(tmp_path / "spec.yaml")).identity != other.identity


def test_what_is_no_phantom_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tissue.yaml"
    path.write_text(TEXT)
    with pytest.raises(SourceError, match="whose fields are synapse"):
        open_stack(str(path), dataset="cats")
    path.write_text("shape: [1, 2, 3]\n")
    with pytest.raises(SourceError, match="describes no phantom"):
        open_stack(str(path))
    path.write_text("kind: phantom\nshape: [0, 2, 3]\n")
    with pytest.raises(SpecError, match="shape"):
        open_stack(str(path))
