"""Laws of what a phantom knows beside its ids: fields agree with each other, with the ids, and in any block."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from simexm import Simulation
from simexm.errors import SpecError
from simexm.geometry.grid import Box, Triple
from simexm.kernels.neuropil import organelles
from simexm.sources import phantom
from simexm.sources.phantom import FIELDS, Phantom, PhantomVolume
from tests.build import layer, spec

SIDE = 10**6
BOX = Box.at((9600, 8000, 8000), (100, 130, 140))
VOXEL_NM = (20, 20, 20)


@pytest.fixture(scope="module")
def volume() -> PhantomVolume:
    """Neuropil in voxels of 20 nm."""
    return Phantom(shape=(SIDE,) * 3, voxel_size_nm=VOXEL_NM).open()


@pytest.fixture(scope="module")
def found(volume: PhantomVolume) -> dict[str, NDArray[Any]]:
    """Ids and all fields of a box."""
    return {"ids": volume.read(BOX), **{name: volume.read_field(name, BOX) for name in FIELDS}}


@pytest.fixture(scope="module")
def bodies() -> dict[str, NDArray[Any]]:
    """A cell body, in coarse voxels."""
    coarse = Phantom(shape=(400, 400, 400), voxel_size_nm=(150, 150, 150)).open()
    box = Box.at((107, 10, 0), (64, 64, 60))
    names = ("compartment", "mitochondria", "em")
    return {"ids": coarse.read(box), **{name: coarse.read_field(name, box) for name in names}}


@pytest.mark.parametrize(
    ("voxel_nm", "seed", "start", "shape", "ids", "synapse"),
    [
        ((40, 32, 32), 1, (5000, 5000, 5000), (24, 60, 70), "69b9de4ade313ad3", "07282507b9cf2ca6"),
        ((40, 32, 32), 3, (0, 0, 0), (20, 50, 60), "d27c1b882ed3849e", "0eedf6db8e7118a7"),
        ((40, 32, 32), 1, (999_900, 12, 999_000), (16, 40, 90), "bd39bb396824ade2", "e850ede011b34b53"),
    ],
)
def test_ids_and_synapses_keep_their_bytes(
    voxel_nm: Triple, seed: int, start: Triple, shape: Triple, ids: str, synapse: str
) -> None:
    """What was simulated on a phantom before it had other fields stays the same."""
    tissue = Phantom(shape=(SIDE,) * 3, voxel_size_nm=voxel_nm, seed=seed).open()
    box = Box.at(start, shape)
    for values, digest in ((tissue.read(box), ids), (tissue.read_field("synapse", box), synapse)):
        assert hashlib.blake2b(values.tobytes(), digest_size=8).hexdigest() == digest


def test_ids_are_read_without_the_cost_of_other_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(phantom, "annotate")
    small = Phantom(shape=(8, 16, 16)).open()
    box = Box.of_shape(small.shape)
    assert small.read(box).any()
    small.read_field("synapse", box)
    assert small.reading_bytes(box.shape, ["synapse"]) == 0 < small.reading_bytes(box.shape, ["soma"])
    with pytest.raises(NameError, match="annotate"):
        small.read_field("soma", box)


def test_any_block_has_the_same_fields(volume: PhantomVolume, found: dict[str, NDArray[Any]]) -> None:
    for part in (Box((0, 0, 0), (23, 130, 61)), Box((23, 31, 17), (24, 90, 140)), Box((61, 7, 0), (100, 110, 3))):
        for name in FIELDS:
            np.testing.assert_array_equal(
                volume.read_field(name, part.shifted(BOX.start)), found[name][part.slices], name
            )


def test_compartments_and_types_divide_cells(found: dict[str, NDArray[Any]]) -> None:
    ids, kind = found["ids"], found["ids"] >> np.uint64(58)
    neuron = (ids != 0) & (kind != 7)
    np.testing.assert_array_equal(found["compartment"] > 0, neuron)
    np.testing.assert_array_equal(found["glia"], (ids != 0) & ~neuron)
    np.testing.assert_array_equal(found["excitatory"] | found["inhibitory"], neuron)
    for cell in np.unique(ids):
        assert np.unique(found["cell_type"][ids == cell]).size == 1
    # dendrites are of families 1 to 3, and of cell bodies; axons of the others
    dendritic = found["dendrite"] | found["spine_neck"] | found["spine_head"]
    assert (kind[dendritic] <= 3).all()
    assert (kind[found["axon"] | found["bouton"]] >= 4).all()
    shares = {name: found[name].mean() for name in ("dendrite", "spine_neck", "spine_head", "axon", "bouton")}
    assert min(shares.values()) > 0.003, shares


def test_a_fifth_of_many_neurons_is_inhibitory() -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(1, 7 << 58, (1, 100, 200), np.uint64)
    types = np.zeros(ids.shape, np.uint8)
    organelles.types_of(ids, types, 3, 4)
    assert (types == organelles.INHIBITORY).mean() == pytest.approx(0.2, abs=4.5 * 0.4 / np.sqrt(ids.size))


def test_nuclei_lie_inside_cell_bodies(bodies: dict[str, NDArray[Any]]) -> None:
    nucleus, soma = bodies["compartment"] == 2, bodies["compartment"] == 1
    assert nucleus.sum() > 1000
    shell = ndimage.binary_dilation(nucleus, np.ones((3, 3, 3), bool)) & ~nucleus
    assert soma[shell].mean() > 0.995  # what else is there, a process pierces
    for label, where in enumerate(ndimage.find_objects(parts := ndimage.label(nucleus)[0]), start=1):
        assert np.unique(bodies["ids"][where][parts[where] == label]).size == 1
    volume = nucleus.sum() / (nucleus | soma).sum()
    assert 0.25 < volume < 0.45


def test_mitochondria_lie_inside_cells_and_away_from_membranes(
    found: dict[str, NDArray[Any]], bodies: dict[str, NDArray[Any]]
) -> None:
    mitochondria = found["mitochondria"]
    deep = np.ones(BOX.shape, bool)
    for axis in range(3):
        for step in (-1, 1):
            deep &= np.roll(found["ids"], step, axis) == found["ids"]
    inner = (slice(1, -1),) * 3
    assert deep[inner][mitochondria[inner]].mean() > 0.9998  # depth is known to first order only
    assert (found["compartment"] > 0)[mitochondria].all()
    assert not (mitochondria & (found["myelin"] | found["vesicles"] | found["glia"])).any()
    assert not bodies["mitochondria"][bodies["compartment"] == 2].any()
    cytosol = bodies["compartment"] == 1
    assert 0.05 < bodies["mitochondria"][cytosol].mean() < 0.12


def test_share_of_mitochondria() -> None:
    """Of dendrites about a tenth, of axons less; in coarse voxels, for a large sample."""
    coarse = Phantom(shape=(75, 75, 75), voxel_size_nm=(120, 120, 120)).open()
    box = Box.of_shape(coarse.shape)
    mitochondria = coarse.read_field("mitochondria", box)
    dendrite, axon = (coarse.read_field(name, box) for name in ("dendrite", "axon"))
    assert 0.04 < mitochondria[dendrite].mean() < 0.12
    assert 0.005 < mitochondria[axon].mean() < 0.05


def test_the_table_of_synapses_names_both_sides_of_the_mask(
    volume: PhantomVolume, found: dict[str, NDArray[Any]]
) -> None:
    table = volume.synapses(BOX.grown((40, 40, 40)))
    rows = {
        int(i): (int(pre), int(post)) for i, pre, post in zip(table["id"], table["pre"], table["post"], strict=True)
    }
    assert len(rows) == len(table["id"])
    numbers, ids = found["synapse_id"], found["ids"]
    np.testing.assert_array_equal(numbers != 0, found["synapse"])
    both = 0
    for number in np.unique(numbers[numbers != 0]).tolist():
        pre, post = rows[number]
        sides = set(ids[numbers == number].tolist())
        assert sides <= {pre, post}
        assert set(ids[(numbers == number) & found["synaptic_density"]].tolist()) <= {post}
        both += len(sides) == 2
    assert both >= 5
    assert set(ids[found["vesicles"]].tolist()) <= {pre for pre, _ in rows.values()}
    assert (found["vesicles"] <= found["bouton"]).all()
    assert (found["synaptic_density"] <= found["synapse"]).all()
    assert found["synaptic_density"].sum() > 100
    assert found["vesicles"].sum() > 1000


def test_synapses_are_listed_once_in_any_cut(volume: PhantomVolume) -> None:
    whole = volume.synapses(BOX)
    parts = [volume.synapses(p) for p in (Box(BOX.start, (9631, *BOX.stop[1:])), Box((9631, *BOX.start[1:]), BOX.stop))]
    for column, values in whole.items():
        np.testing.assert_array_equal(np.sort(np.concatenate([p[column] for p in parts])), np.sort(values))
    centre = np.stack([whole[f"{axis}_nm"] for axis in "zyx"]) / 20
    assert len(whole["id"]) > 3
    assert ((BOX.start <= centre.T) & (BOX.stop > centre.T)).all()


def test_the_grey_value_is_dark_where_a_micrograph_is(found: dict[str, NDArray[Any]]) -> None:
    em, ids = found["em"].astype(float), found["ids"]
    edge = np.zeros(BOX.shape, bool)
    for axis in range(3):
        edge |= np.roll(ids, 1, axis) != ids
    inner = ~ndimage.binary_dilation(edge, np.ones((7, 7, 7), bool))
    plain = inner & found["dendrite"] & ~found["mitochondria"]
    light = em[plain].mean()
    assert em[edge].mean() < light - 30
    for name, darker in (("mitochondria", 50), ("synaptic_density", 60), ("myelin", 80)):
        assert em[found[name]].mean() < light - darker, name
    assert 5 < em[plain].std() < 9  # noise alone


def test_layers_label_what_a_phantom_offers() -> None:
    source = {"kind": "phantom", "shape": [20, 40, 40]}
    layers = [layer(name="a", region="mitochondria", density_per_um3=900.0), layer(name="b", region="everywhere",
              density_from={"field": "em", "per_value_per_um3": -9, "at_zero_per_um3": 2000, "most_per_um3": 2000},
              density_per_um2=None)]  # fmt: skip
    plan = Simulation.from_mapping(spec(*layers, source=source)).plan()
    assert plan.context.masks == ("mitochondria",)
    assert plan.context.greys == ("em",)
    for wrong, text in (("soma", "kind mask"), ("fluor", "does not have: its grey fields are 'em'")):
        layers[1]["density_from"]["field"] = wrong
        with pytest.raises(SpecError, match=text):
            Simulation.from_mapping(spec(*layers, source=source))
