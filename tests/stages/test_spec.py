"""Laws of the specification: what is wrong is told with its place and its remedy, what is right survives as text."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simexm import settings as specfile
from simexm.api import Simulation
from simexm.errors import SimexmWarning, SpecError
from simexm.geometry.grid import Box
from simexm.run.in_memory import simulate
from tests.build import VOXEL_NM, confocal, layer, simulation, spec

REGIONS, LABELLING, EXPANSION, OPTICS, CAMERA, TRUTH = range(6)
Spec = dict[str, Any]


def _stage(number: int, **changes: Any) -> Callable[[Spec], None]:
    return lambda s: s["stages"][number].update(changes)


def _layer(**changes: Any) -> Callable[[Spec], None]:
    return lambda s: s["stages"][LABELLING]["layers"][0].update(changes)


def _channel(**changes: Any) -> Callable[[Spec], None]:
    return lambda s: s["stages"][OPTICS]["channels"][0].update(changes)


def _root(**changes: Any) -> Callable[[Spec], None]:
    return lambda s: s.update(changes)


def _without(*numbers: int) -> Callable[[Spec], None]:
    return lambda s: s.update(stages=[x for i, x in enumerate(s["stages"]) if i not in numbers])


def _order(*numbers: int) -> Callable[[Spec], None]:
    return lambda s: s.update(stages=[s["stages"][i] for i in numbers])


@dataclass(frozen=True)
class ExpectFail:
    """A change that spoils a good spec, and words that the message must hold: the place, the fault, the remedy."""

    name: str
    spoil: Callable[[Spec], None]
    words: tuple[str, ...]


BAD = [
    ExpectFail("root key", _root(sauce=1), ("'sauce'", "did you mean 'source'")),
    ExpectFail("stage key", _stage(OPTICS, pinhole_airy_unit=1), ("stages[3]", "did you mean 'pinhole_airy_units'")),
    ExpectFail("layer key", _layer(linker=4), ("stages[1].layers[0]", "did you mean 'linker_nm'")),
    ExpectFail("channel key", _channel(band=[1, 2]), ("stages[3].channels[0]", "did you mean 'band_nm'")),
    ExpectFail(
        "deep key", _layer(dyes_per_protein={"means": 3}), ("layers[0].dyes_per_protein", "did you mean 'mean'")
    ),
    ExpectFail("execution key", _root(execution={"tiles": [1, 1, 1]}), ("execution", "did you mean 'tile'")),
    ExpectFail("crop key", _root(crop={"shape": [1, 1, 1], "ofset": [0, 0, 0]}), ("crop", "did you mean 'offset'")),
    ExpectFail("nothing near", _stage(TRUTH, qqqq=1), ("stages[5]", "known keys: regions, stage")),
    ExpectFail(
        "stage name", lambda s: s["stages"][OPTICS].update(stage="confokal"), ("stages[3]", "confokal", "confocal")
    ),
    ExpectFail("no stage name", lambda s: s["stages"][OPTICS].pop("stage"), ("stages[3]", "`stage:` is missing")),
    ExpectFail("no source", lambda s: s.pop("source"), ("source is missing",)),
    ExpectFail("no stages", _root(stages=[]), ("stages", "at least 1")),
    ExpectFail("wrong type", _stage(EXPANSION, factor="four"), ("stages[2].factor", "'four'")),
    ExpectFail("not a number", _stage(EXPANSION, factor=math.nan), ("stages[2].factor", "finite")),
    ExpectFail("NA", _stage(OPTICS, numerical_aperture=1.333), ("numerical_aperture 1.333", "lower the aperture")),
    ExpectFail(
        "NA above", _stage(OPTICS, numerical_aperture=1.4), ("numerical_aperture 1.4", "refractive_index 1.333")
    ),
    ExpectFail(
        "band holds the laser", _channel(band_nm=[480, 550]), ("band_nm 480 to 550", "contains", "above 488 nm")
    ),
    ExpectFail(
        "band begins at the laser", _channel(band_nm=[488, 550]), ("band_nm 488 to 550", "contains", "above 488 nm")
    ),
    ExpectFail("band below", _channel(band_nm=[420, 470]), ("band_nm 420 to 470", "lies below", "488 nm")),
    ExpectFail("band upside down", _channel(band_nm=[550, 500]), ("band_nm", "ascending", "550, 500")),
    ExpectFail("filter misses", _channel(band_nm=[800, 820]), ("miss the emission of ATTO488", "move a band_nm")),
    ExpectFail(
        "no laser",
        _channel(laser_wavelength_nm=640, band_nm=[660, 700]),
        ("no laser (640 nm) excites ATTO488", "absorbs most at 5"),
    ),
    ExpectFail("unknown dye", _layer(dye="ATTO 489"), ("ATTO 489", "did you mean", "ATTO488", "dyes:")),
    ExpectFail(
        "region",
        _layer(region="nucleus", density_per_um2=None, density_per_um3=5),
        ("'nucleus'", "membrane, cytosol", "source.regions"),
    ),
    ExpectFail(
        "both densities",
        _layer(density_per_um3=5),
        ("'membrane'", "exactly one of density_per_um2, density_per_um3 and density_from"),
    ),
    ExpectFail("no density", _layer(density_per_um2=None), ("exactly one of",)),
    ExpectFail(
        "surface of cytosol", _layer(region="cytosol"), ("density_per_um2", "'cytosol'", "give density_per_um3")
    ),
    ExpectFail(
        "density too high",
        _layer(density_per_um2=2e6),
        ("density_per_um2", "less than or equal to 1000000", "got 2000000"),
    ),
    ExpectFail("density zero", _layer(density_per_um2=0), ("density_per_um2", "greater than 0")),
    ExpectFail("fraction", _layer(cell_fraction=1.5), ("cell_fraction", "less than or equal to 1", "1.5")),
    ExpectFail("retention", _layer(retention=0), ("retention", "greater than 0")),
    ExpectFail(
        "dye number",
        _layer(dyes_per_protein={"distribution": "fixed", "mean": 3}),
        ("fixed", "sites", "mean"),
    ),
    ExpectFail("layer cells", _layer(name="cells"), ("cannot be named 'cells'", "choose another")),
    ExpectFail("layer name", _layer(name="a/b"), ("layers[0].name", "pattern")),
    ExpectFail(
        "two layers",
        lambda s: s["stages"][LABELLING]["layers"].append(layer(name="MEMBRANE")),
        ("two layers are named membrane",),
    ),
    ExpectFail(
        "two channels",
        lambda s: s["stages"][OPTICS]["channels"].append(s["stages"][OPTICS]["channels"][0]),
        ("two channels are named green",),
    ),
    ExpectFail("no regions", _without(REGIONS), ("'labelling' reads regions", "usual order is regions, labelling")),
    ExpectFail("no labelling", _without(LABELLING), ("'expansion' reads emitters",)),
    ExpectFail("no expansion", _without(EXPANSION), ("'confocal' reads expanded",)),
    ExpectFail("no microscope", _without(OPTICS, CAMERA), ("no stage writes 'expected'", "add a microscope (confocal")),
    ExpectFail("no truth", _without(TRUTH), ("no stage writes 'truth'", "add truth")),
    ExpectFail(
        "out of order", _order(LABELLING, REGIONS, EXPANSION, OPTICS, CAMERA, TRUTH), ("'labelling' reads regions",)
    ),
    ExpectFail(
        "camera first", _order(REGIONS, LABELLING, EXPANSION, CAMERA, OPTICS, TRUTH), ("'camera' reads expected",)
    ),
    ExpectFail("twice", _order(0, 1, 2, 3, 3, 4, 5), ("a second stage 'confocal'", "remove one")),
    ExpectFail(
        "mask name", _root(source={"path": "x", "regions": {"membrane": "m"}}), ("mask", "'membrane'", "another name")
    ),
    ExpectFail("bits", _stage(CAMERA, bits=17), ("stages[4].bits", "less than or equal to 16")),
    ExpectFail(
        "frame",
        _stage(CAMERA, frame_pixels=[0, 4]),
        ("frame_pixels", "greater than or equal to 1"),
    ),
    ExpectFail("keep", _root(keep=["emiters"]), ("keep", "'emitters'")),
    ExpectFail("seed", _root(seed=-1), ("seed", "greater than or equal to 0")),
]


@pytest.mark.parametrize("case", BAD, ids=[c.name for c in BAD])
def test_a_bad_spec_is_told_with_its_place_and_its_remedy(case: ExpectFail) -> None:
    bad = copy.deepcopy(spec())
    case.spoil(bad)
    with pytest.raises(SpecError) as caught:
        Simulation.from_mapping(bad, "my.yaml")
    told = str(caught.value)
    assert told.startswith("my.yaml")
    for word in case.words:
        assert word in told


def test_all_faults_are_told_at_once() -> None:
    bad = spec(layer(linker_nm=-1, colour="red"), sead=4)
    with pytest.raises(SpecError, match=r"has \d problems") as caught:
        Simulation.from_mapping(bad)
    for word in ("linker_nm", "'colour'", "did you mean 'seed'"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nseed: 2\n", ("'seed' is given twice", "line 2")),
        ("source: {path: a, path: b}\n", ("'path' is given twice",)),
        ("- 1\n- 2\n", ("should be a mapping", "simexm new")),
        ("a: [1, 2\n", ("not valid YAML or JSON",)),
        ('{"seed": 1, "seed": 2}', ("'seed' is given twice",)),
    ],
)
def test_text_that_is_no_spec(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        Simulation.load(path)
    assert all(word in str(caught.value) for word in ("my.yaml", *words))
    with pytest.raises(SpecError, match=r"there is no spec .*my\.yml; did you mean my\.yaml"):
        Simulation.load(tmp_path / "my.yml")


@pytest.mark.parametrize(
    ("crop", "words"),
    [
        ({"shape": [0, 4, 4]}, ("crop.shape [0, 4, 4]", "at least 1")),
        ({"offset": [0, 0, 5], "shape": [6, 8, 8]}, ("[6, 8, 13]", "[6, 10, 12]", "offset + shape")),
        ({"offset": [-1, 0, 0], "shape": [2, 8, 8]}, ("[-1, 0, 0]", "outside")),
        ({"offset": [60, 0, 0], "shape": [2, 8, 8]}, ("outside",)),
    ],
)
def test_a_crop_lies_inside_its_source(crop: Spec, words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        simulate(np.ones((6, 10, 12), np.uint8), simulation(crop=crop), voxel_size_nm=VOXEL_NM)
    assert all(word in str(caught.value) for word in words)


def test_an_index_far_from_waters_is_warned_of() -> None:
    oil = confocal(refractive_index=1.515)
    with pytest.warns(SimexmWarning, match=r"refractive_index 1\.515 is far from water.*set it to 1\.333"):
        simulation(optics=oil)
    simulation(optics=oil, factor=1)  # tissue that is not expanded may lie in anything
    simulation(optics=confocal(refractive_index=1.35))


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,12}", fullmatch=True).filter(lambda n: n.lower() != "cells")
SIZE = st.floats(1, 1e4, allow_nan=False)


@st.composite
def _layers(draw: st.DrawFn) -> list[Spec]:
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique_by=str.lower))
    made = []
    for name in names:
        region = draw(st.sampled_from(["membrane", "cytosol", "nucleus"]))
        density = "density_per_um2" if region == "membrane" and draw(st.booleans()) else "density_per_um3"
        made.append(
            {
                "name": name,
                "dye": draw(st.sampled_from(["ATTO488", "mine"])),
                "region": region,
                density: draw(SIZE),
                **draw(st.fixed_dictionaries({}, optional={
                    "cell_fraction": st.floats(0.01, 1),
                    "retention": st.floats(0.01, 1),
                    "linker_nm": st.floats(0, 200),
                    "stained": st.sampled_from(["before_expansion", "after_expansion"]),
                    "dyes_per_protein": st.sampled_from([
                        {"mean": 2.5},
                        {"distribution": "fixed", "sites": 3},
                        {"distribution": "binomial", "sites": 4, "probability": 0.25},
                    ]),
                })),
            }
        )  # fmt: skip
    return made


@st.composite
def _specs(draw: st.DrawFn) -> Spec:
    root = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "seed": st.integers(0, 2**63 - 1),
                "name": st.text(
                    st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")),
                    min_size=1,
                    max_size=9,
                ),
                "crop": st.just({"offset": [1, 2, 3], "shape": [4, 5, 6]}),
                "keep": st.lists(st.sampled_from(["expected", "labelled", "emitters"]), unique=True),
                "execution": st.just({"memory_GiB": 3.5, "tile": [8, 9, 10]}),
            },
        )
    )
    kind = draw(st.sampled_from(["confocal", "widefield", "light_sheet"]))
    optics = confocal(
        numerical_aperture=draw(st.floats(0.2, 1.3)),
        pixel_size_nm=draw(SIZE),
        plane_spacing_nm=draw(SIZE),
        objective_transmission=draw(st.floats(0.1, 1)),
    )
    if kind != "confocal":
        light = {k: v for k, v in optics["channels"][0].items() if k != "laser_power_uW"}
        optics |= {"stage": kind, "channels": [{**light, "irradiance_W_per_cm2": draw(SIZE)}]}
    if kind == "light_sheet":
        optics["sheet_waist_um"] = 2
    camera: dict[str, object] = {"read_noise_e": draw(st.floats(0, 9)), "bits": draw(st.integers(8, 16))}
    if draw(st.booleans()):
        camera |= {"illumination": {"edge": 0.5}, "frame_pixels": [64, 128]}
    return spec(
        *draw(_layers()),
        factor=draw(st.floats(1, 20)),
        optics=optics,
        camera=camera,
        neighbourhood=draw(st.sampled_from([8, 26])),
        source={"path": "a b.zarr", "regions": {"nucleus": "masks/n"}},
        dyes={"mine": {"like": "ATTO488", "quantum_yield": 0.5}},
        **root,
    )


@settings(max_examples=60, deadline=None)
@given(_specs(), st.sampled_from([Path("a.yaml"), Path("a.json")]))
def test_a_spec_survives_as_text(data: Spec, path: Path) -> None:
    sim = Simulation.from_mapping(data)
    assert Simulation.from_mapping(sim.to_mapping()) == sim
    text = specfile.dump(sim.to_mapping(), path)
    assert Simulation.from_mapping(specfile.parse(text, "spec")) == sim
    assert sim.replace(seed=5) == Simulation.from_mapping({**sim.to_mapping(), "seed": 5})
    resolved = sim.resolved()
    assert Simulation.from_mapping(resolved.to_mapping()) == resolved


def test_files_and_the_phantom_survive(tmp_path: Path) -> None:
    sim = simulation(layer(region="synapse", density_per_um3=50), source={"kind": "phantom", "shape": [8, 9, 10]})
    for name in ("a.yaml", "b.json"):
        sim.save(tmp_path / name)
        assert Simulation.load(tmp_path / name) == sim
    assert json.loads((tmp_path / "b.json").read_text())["source"]["kind"] == "phantom"


@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
def test_the_plan_counts_what_there_will_be() -> None:
    labels = np.ones((30, 70, 90), np.uint16)
    sim = simulation(layer(), layer(name="b", dye="ATTO488"), keep=["expected", "labelled"])
    plan = simulate(labels, sim, voxel_size_nm=VOXEL_NM).plan
    told = plan.to_mapping()
    shape = (9, 55, 70)  # 1200 nm in 125 nm, 2240 and 2880 nm in 40.625 nm
    assert plan.shape == shape
    assert told["image"]["shape_pixels"] == list(shape)
    assert told["image"]["pixel_size_tissue_nm"] == [125, 40.625, 40.625]
    blocks = list(plan.blocks)
    assert told["blocks"]["count"] == len(blocks)
    assert sum(b.size for b in blocks) == math.prod(shape)
    assert sum(plan.geometry.own_voxels(b).size for b in blocks) == labels.size
    assert [o.path for o in plan.outputs] == ["", "expected", "labelled", "labels/cells", "labels/membrane", "labels/b"]
    per_pixel = 2 + 4 + 2 * 4 + 3 * 2
    assert plan.stored_bytes == per_pixel * sum(math.prod(level.shape) for level in plan.levels)
    for box in blocks:
        need = plan.boxes(box)
        own = plan.geometry.own_voxels(box)
        assert plan.geometry.voxels(need["emitters"]).contains(own)
        assert plan.geometry.voxels(need["labels"]).contains(own.grown((1, 1, 1)).intersect(Box.of_shape((30, 70, 90))))
    assert told["memory_per_worker_bytes"] == plan.memory.total
    json.dumps(told)
