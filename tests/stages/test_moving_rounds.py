"""Laws of rounds between which the gel moves: dyes, labels and the stated transform agree in each."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from simexm.analysis.registration.score import AlignmentScore
from simexm.analysis.registration.transform import Transform
from simexm.analysis.registration.truth import TrueTransform, transform_at
from simexm.api import Simulation
from simexm.errors import OutputError, SimexmWarning, SpecError
from simexm.geometry.grid import Box
from simexm.result.result import Result
from simexm.run.in_memory import Simulated, simulate
from simexm.stages.expansion.expansion import Expansion
from simexm.stages.expansion.rounds import Round
from tests import build, rounds_build

Array = NDArray[np.float64]
CELL_NM = (40.0, 32.0, 32.0)
SECOND = {
    "shift_um": [0.04, 0.2, -0.1],
    "rotation_deg": [6, 0, 2],
    "stretch": [0.95, 1.02, 1.01],
    "displacement": [{"rms_nm": 30, "correlation_um": 1}],
}
UNEVEN = {"displacement": [{"rms_nm": 40, "correlation_um": 1}]}


def spec(*later: dict[str, Any], tile: Any = None, **fields: Any) -> dict[str, Any]:
    """Cells in rounds: the first, and these."""
    optics = build.confocal(pixel_size_nm=160, plane_spacing_nm=320)
    layer = build.layer(region="cytosol", density_per_um3=20000)
    data = build.spec(layer, optics=optics, execution={"tile": tile})
    data["stages"][2] = {"stage": "expansion", "rounds": [{}, *later], **fields}
    return data


def ids() -> NDArray[np.uint64]:
    """27 cells with gaps between them."""
    found = np.zeros((36, 60, 60), np.uint64)
    for n, (z, y, x) in enumerate(np.ndindex(3, 3, 3)):
        found[2 + 11 * z : 12 + 11 * z, 3 + 18 * y : 19 + 18 * y, 3 + 18 * x : 19 + 18 * x] = n + 1
    return found


def run(data: dict[str, Any], until: str | None = None) -> Simulated:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimexmWarning)
        return simulate(ids(), Simulation.from_mapping(data), voxel_size_nm=CELL_NM, until=until)


@cache
def counted() -> Simulated:
    """Dyes by pixel, and labels, of two rounds."""
    return run(spec(SECOND, **UNEVEN), until="expansion")


def test_labels_of_a_round_are_the_first_rounds_where_the_transform_says() -> None:
    """Each pixel of the second round has the id of the voxel of tissue that both transforms say lies there."""
    found = counted()
    g, transforms = found.plan.geometry, [c.geometry.transform for c in found.plan.context.distinct]
    assert [m.shape for m in (found.image, found.labels["cells"])] == [(2, 1, *g.shape), (2, *g.shape)]
    centres = [(np.arange(n) + 0.5) * float(p) for n, p in zip(g.shape, g.pixel_nm, strict=True)]
    z, y, x = np.meshgrid(*centres, indexing="ij")
    for transform, labels in zip(transforms, found.labels["cells"], strict=True):
        at = [np.floor(v / n).astype(int) for v, n in zip(transform.invert((z, y, x)), CELL_NM, strict=True)]
        inside = np.all([(v >= 0) & (v < n) for v, n in zip(at, ids().shape, strict=True)], axis=0)
        wanted = ids()[tuple(np.where(inside, v, 0) for v in at)] * inside
        assert (labels == wanted).all()
    assert (found.labels["cells"][0] != found.labels["cells"][1]).mean() > 0.05


def test_dyes_follow_the_labels_of_their_round() -> None:
    """They lie in the label images of their round, and in those of the other they do not."""
    found = counted()
    dyes, cells = found.image[:, 0].astype(float), found.labels["cells"]
    assert dyes[1].sum() == pytest.approx(dyes[0].sum(), rel=0.1)  # some leave the image
    share = [[(d * (c > 0)).sum() / d.sum() for c in cells] for d in dyes]
    assert min(share[0][0], share[1][1]) > 0.9
    assert max(share[0][1], share[1][0]) < 0.85


@pytest.mark.slow
def test_tiles_change_no_round() -> None:
    whole, tiles = run(spec(SECOND, **UNEVEN)), run(spec(SECOND, tile=[9, 30, 30], **UNEVEN))
    assert (whole.labels["cells"] == tiles.labels["cells"]).all()
    assert (whole.image == tiles.image).mean() > 0.9999


def test_a_round_without_a_move_has_the_bytes_of_none() -> None:
    """And the first round those of an expansion without rounds, but for the detector's noise."""
    alone = run({**spec(), "keep": ["expected"]})
    plain = spec()
    del plain["stages"][2]["rounds"]
    single = run({**plain, "keep": ["expected"]})
    moved = run({**spec(SECOND), "keep": ["expected"]})
    assert (alone.kept["expected"][0] == single.kept["expected"]).all()
    assert (moved.kept["expected"][0] == single.kept["expected"]).all()
    assert (moved.labels["cells"][0] == single.labels["cells"]).all()


def test_what_is_lost_stays_lost() -> None:
    """Shares of dyes are left, those of a smaller share among those of a larger; missing tissue has neither dye nor label."""
    gone = [[0.3, 0.4, 0.5], [1.0, 1.2, 1.1]]
    found = run(spec({"left": 0.7}, {"left": 0.2}, {"missing_um": [gone]}), until="expansion")
    dyes, cells = found.image[:, 0].astype(np.int64), found.labels["cells"]
    total = dyes[0].sum()
    for n, left in ((1, 0.7), (2, 0.2)):
        assert abs(dyes[n].sum() - left * total) < 5 * np.sqrt(total * left * (1 - left))
        assert (dyes[n] <= dyes[n - 1]).all()
        assert (cells[n] == cells[0]).all()
    # pixels are 40 x 80 x 80 nm of tissue
    pixel = np.array([0.08, 0.04, 0.04])
    centres = np.stack(
        np.meshgrid(*((np.arange(n) + 0.5) * p for n, p in zip(cells.shape[1:], pixel, strict=True)), indexing="ij")
    )
    corner = np.array(gone)[:, :, None, None, None]
    # a voxel is missing if its centre is, so its border may be half a voxel off
    away = np.array([0.04, 0.032, 0.032])[:, None, None, None]
    inside = np.all((centres > corner[0] + away) & (centres < corner[1] - away), axis=0)
    outside = np.any((centres < corner[0] - away) | (centres > corner[1] + away), axis=0)
    assert inside.sum() > 500
    assert cells[0][inside].any()
    assert not cells[3][inside].any()
    assert (cells[3] == cells[0])[outside].all()
    assert dyes[3][inside].sum() == 0
    assert (dyes[3] == dyes[0])[
        np.any((centres < corner[0] - 2 * away) | (centres > corner[1] + 2 * away), axis=0)
    ].all()


def test_barcodes_and_labelling_see_the_same_rounds() -> None:
    data = rounds_build.spec()
    data["stages"][3]["rounds"] = [{}, {"shift_um": [0, 0.3, 0]}, {"shift_um": [0, 0, 0.3], "left": 0.5}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimexmWarning)
        found = simulate(rounds_build.cells(), Simulation.from_mapping(data), voxel_size_nm=rounds_build.VOXEL_NM)
    assert found.image.shape[0] == len(found.labels["cells"]) == 3
    first, second, _ = found.labels["cells"]
    assert (first[:, :-6] == second[:, 6:]).all()  # 0.3 um are 6 pixels of 50 nm
    stain = found.image[:, 1].astype(float) - 100
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in ((stain[0, :, :-6], stain[1, :, 6:]), stain[:2])]
    assert alike[0] > 0.8 > alike[1] + 0.2
    assert stain[2].sum() == pytest.approx(0.5 * stain[0].sum(), rel=0.15)
    data["stages"][3]["rounds"].append({})
    with pytest.raises(SpecError, match=r"3 frames.* 4"):
        simulate(rounds_build.cells(), Simulation.from_mapping(data), voxel_size_nm=rounds_build.VOXEL_NM)


def test_what_was_not_washed_out_is_seen_in_the_next_round() -> None:
    """A share of the dyes of each amplicon whose letter changes; the first round, and what has its letter, is as without."""
    found = {}
    for residue in (0.0, 0.25):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SimexmWarning)
            dense = [{"region": "cytosol", "density_per_um3": 400}]
            data = Simulation.from_mapping(rounds_build.spec(residue=residue, amplicons=dense))
            found[residue] = simulate(
                rounds_build.cells(), data, voxel_size_nm=rounds_build.VOXEL_NM, until="expansion"
            )
    clean, stale = (one.image.astype(np.int64) for one in found.values())
    assert (stale[0] == clean[0]).all()
    assert (stale >= clean).all()
    tables = found[0.25].tables
    texts = dict(zip(tables["barcodes"]["id"].tolist(), tables["barcodes"]["barcode"].tolist(), strict=True))
    letters = np.array([list(texts[cell]) for cell in tables["amplicons"]["cell"].tolist()])
    dyes, layers = tables["amplicons"]["dyes"], list(found[0.25].plan.context.emits)
    for number in (1, 2):
        for letter in "AC":
            before, layer = letters[:, number - 1] == letter, layers.index(f"amplicons_{letter}")
            # the image ends before the specimen does
            inside = clean[number - 1, layer].sum() / dyes[before].sum()
            wanted = 0.25 * dyes[before & (letters[:, number] != letter)].sum() * inside
            assert wanted > 1000
            assert (stale - clean)[number, layer].sum() == pytest.approx(wanted, rel=0.06)


def test_the_exact_transform_of_a_round(tmp_path: Path) -> None:
    """Rounds of a stored result: there and back, the same as label images say, and nothing is left of itself."""
    data = spec(SECOND, **UNEVEN)
    data["source"] = {"kind": "phantom", "shape": [24, 70, 70]}
    simulation = Simulation.from_mapping(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimexmWarning)
        simulation.run(tmp_path / "out.zarr", quiet=True)
    voxels = simulation.source.open()
    ids = voxels.read(Box.of_shape(voxels.shape))
    truth = transform_at(str(tmp_path / "out.zarr" / "round_02"))
    assert isinstance(truth, TrueTransform)
    assert truth.frame is not None
    points = np.random.default_rng(0).uniform(0.2, 0.8, (3, 2000)) * truth.frame.extent_um[:, None]
    there = truth.near(points)(points)
    assert 0.1 < np.abs(there - points).max() < 0.6
    assert np.abs(truth.whole.inverse(there, 1e-3) - points).max() < 1e-3 * min(CELL_NM) / 1e3
    to_tissue = transform_at(str(tmp_path / "out.zarr"))
    result = Result.open(tmp_path / "out.zarr")
    centres = truth.frame.centres()
    voxel = np.floor(to_tissue.near(centres)(centres) * 1e3 / np.array(CELL_NM)[:, None, None, None]).astype(int)
    inside = np.all([(v >= 0) & (v < n) for v, n in zip(voxel, ids.shape, strict=True)], axis=0)
    wanted = ids[tuple(np.where(inside, v, 0) for v in voxel)] * inside
    assert (np.asarray(result.array(of="labels/cells")) == wanted).all()
    # sampled on the grid of the image, as files hold it, it is linear between pixels
    sampled = Transform(displacement=truth.whole.displacement, frame=truth.frame)(points)
    assert np.abs(sampled - there).max() < 0.01
    path = tmp_path / "out.zarr" / "round_02"
    judged = AlignmentScore().run(path, path, output=tmp_path / "score.zarr", quiet=True)
    found = {(row["score"], row["subset"]): row["value"] for row in judged.scores().to_pylist()}
    assert found["residual_rms", ""] == 0 < found["residual_rms", "identity"]
    with pytest.raises(OutputError, match="2 rounds"):
        transform_at(str(tmp_path / "out.zarr" / "round_07"))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"rounds": [{"shift_um": [1, 0, 0]}, {}]}, "first"),
        ({"rounds": [{}, {"displacement": [{"rms_nm": 400, "correlation_um": 1}]}]}, "fold"),
        ({"rounds": [{}, {"stretch": [-1, 1, 1]}]}, "stretch"),
        ({"rounds": [{}, {"rotation_deg": [90, 0, 0]}]}, "rotation"),
        ({"rounds": [{}, {"missing_um": [[[1, 1, 1], [0, 2, 2]]]}]}, "empty"),
        ({"rounds": [{}, {"left": 0}]}, "left"),
    ],
)
def test_rounds_that_cannot_be_are_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Expansion.model_validate(fields)


def test_a_rotation_keeps_lengths_and_turns_as_stated() -> None:
    matrix = np.array(Round(rotation_deg=(10, 20, -5)).linear)
    assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-11)
    assert np.linalg.det(matrix) == pytest.approx(1)
    # about z, y turns towards x
    assert np.array(Round(rotation_deg=(30, 0, 0)).linear) @ [0, 1, 0] == pytest.approx([0, 3**0.5 / 2, 0.5])
