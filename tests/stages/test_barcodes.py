"""Barcodes: how many amplicons, where, how large, which dye in which round; and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm import simulate
from simexm.api import Simulation
from simexm.errors import SpecError
from simexm.kernels.emission.amplicons import Amplicons, scatter_dyes
from simexm.kernels.emission.points import Emitters
from simexm.run.in_memory import Simulated
from simexm.stages.contract import Chunk
from simexm.stages.sample.barcodes import Barcodes, in_order
from simexm.stages.sample.codebook import random_codes
from tests.rounds_build import VOXEL_NM, barcodes, cells, simulation, spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
NO_EMITTERS = Emitters.empty(0)


def made(labels: NDArray[Any], what: Simulation, until: str | None = "barcodes") -> Simulated:
    return simulate(labels, what, voxel_size_nm=VOXEL_NM, until=until)


@pytest.fixture(scope="module")
def labels() -> NDArray[np.uint64]:
    return cells()


@pytest.fixture(scope="module")
def whole(labels: NDArray[np.uint64]) -> Simulated:
    return made(labels, simulation())


def rows(found: Simulated) -> list[tuple[Any, ...]]:
    """Amplicons in one order."""
    a = found.tables["amplicons"]
    return sorted(zip(*(a[k].tolist() for k in ("z_nm", "y_nm", "x_nm", "cell", "region", "dyes")), strict=True))


# ---------------------------------------------------------------- how many, where


def test_number_is_poisson_with_the_density() -> None:
    """In every eighth of one large cell: mean and variance of a Poisson number."""
    labels = np.full((64, 96, 96), 7, np.uint32)
    found = made(labels, simulation(amplicons=[{"region": "cytosol", "density_per_um3": 40}], rounds=1))
    where = np.stack([found.tables["amplicons"][f"{a}_nm"] for a in "zyx"], axis=1) / VOXEL_NM
    assert np.all((where >= 0) & (where <= labels.shape))
    counts, _ = np.histogramdd(where, bins=(8, 8, 8), range=[(0, n) for n in labels.shape])
    mean = 40 * 8 * 12 * 12 * math.prod(VOXEL_NM) * 1e-9
    assert abs(counts.mean() - mean) < 4 * math.sqrt(mean / counts.size)
    dispersion = ((counts - mean) ** 2 / mean).sum()
    assert abs(dispersion - counts.size) < 4 * math.sqrt(2 * counts.size)


def test_amplicons_lie_in_their_cell_and_region(labels: NDArray[np.uint64]) -> None:
    sites = [{"region": "cytosol", "density_per_um3": 5}, {"region": "membrane", "density_per_um3": 20}]
    found = made(labels, simulation(amplicons=sites))
    voxel = tuple(
        np.floor(found.tables["amplicons"][f"{a}_nm"] / v).astype(int) for a, v in zip("zyx", VOXEL_NM, strict=True)
    )
    np.testing.assert_array_equal(labels[voxel], found.tables["amplicons"]["cell"])
    assert (found.tables["amplicons"]["cell"] != 0).all()
    neighbours = np.stack(
        [np.roll(labels, (a, b, c), (0, 1, 2)) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]
    )
    inner = np.all([(v > 0) & (v < n - 1) for v, n in zip(voxel, labels.shape, strict=True)], axis=0)
    membrane = np.any(neighbours != labels, axis=0)[voxel]
    np.testing.assert_array_equal(membrane[inner], (found.tables["amplicons"]["region"] == "membrane")[inner])
    assert len(set(found.tables["amplicons"]["region"])) == 2


def test_table_of_barcodes_counts_the_amplicons(whole: Simulated, labels: NDArray[np.uint64]) -> None:
    ids = whole.tables["barcodes"]["id"]
    assert set(ids) == set(np.unique(labels)) - {0}
    counts = [(whole.tables["amplicons"]["cell"] == i).sum() for i in ids]
    np.testing.assert_array_equal(whole.tables["barcodes"]["amplicons"], counts)
    np.testing.assert_array_equal(whole.cells["amplicons"], counts)


def test_a_crop_draws_the_same(whole: Simulated, labels: NDArray[np.uint64]) -> None:
    low, high = (10, 20, 30), (34, 64, 70)
    part = simulation().replace(crop={"offset": low, "shape": [b - a for a, b in zip(low, high, strict=True)]})
    inside = [
        r for r in rows(whole) if all(a * v <= p < b * v for a, b, v, p in zip(low, high, VOXEL_NM, r[:3], strict=True))
    ]
    found = rows(made(labels, part))
    assert len(found) > 10
    np.testing.assert_allclose([r[:3] for r in found], [r[:3] for r in inside], atol=1e-6)
    assert [r[3:] for r in found] == [r[3:] for r in inside]


def test_a_tile_changes_nothing(whole: Simulated, labels: NDArray[np.uint64]) -> None:
    """Amplicons, and the noise-free image of each round, whether a block is one tile or several."""
    assert rows(made(labels, simulation().with_tile((3, 9, 14)))) == rows(whole)
    small = labels[:20, 20:60, 20:60]
    one = made(small, simulation(rounds=2), "confocal").image
    other = made(small, simulation(rounds=2).with_tile((4, 17, 26)), "confocal").image
    assert one.shape == other.shape == (2, 3, 6, 25, 25)
    assert np.abs(one - other).max() < 2e-6 * one.max()


# ---------------------------------------------------------------- how large


def test_size_and_number_of_dyes() -> None:
    """Dyes fill a ball evenly: root mean square radius sqrt(3 / 5) R along every axis alike, none beyond R."""
    n, radius = 400, 50.0
    places = np.random.default_rng(1).uniform(0, 1e4, (n, 3))
    voxels = np.random.default_rng(2).integers(0, 1000, (n, 3)).astype(np.int32)
    whole = np.arange(n, dtype=np.int32)
    dyes = np.full(n, 50, np.int32)
    balls = Amplicons(places, voxels, whole * 0, whole, dyes, np.zeros(n, np.uint8), np.ones(n, np.uint8))
    chunks = scatter_dyes(balls, np.array([[5, 6]], np.int64), radius, Emitters.empty(4096))
    away, cell = [], []
    for e in chunks:
        away.append(np.stack([e.z, e.y, e.x], axis=1) - places[e.cell])
        cell.append(e.cell.copy())
    offsets = np.concatenate(away)
    np.testing.assert_array_equal(np.bincount(np.concatenate(cell)), dyes)
    assert np.linalg.norm(offsets, axis=1).max() <= radius
    for axis in range(3):
        np.testing.assert_allclose(np.sqrt(np.mean(offsets[:, axis] ** 2)), radius / math.sqrt(5), rtol=0.02)
    volume = (np.linalg.norm(offsets, axis=1) / radius) ** 3  # uniform from 0 to 1
    assert abs(volume.mean() - 0.5) < 4 / math.sqrt(12 * len(volume))
    assert np.linalg.norm(offsets.mean(axis=0)) < 1.5


@pytest.mark.parametrize("distribution", ["poisson", "fixed"])
def test_dyes_of_an_amplicon(distribution: str) -> None:
    labels = np.full((40, 60, 60), 7, np.uint32)
    what = simulation(
        amplicons=[{"region": "cytosol", "density_per_um3": 60}],
        distribution=distribution,
        rounds=1,
        dyes_per_amplicon=50,
    )
    dyes = made(labels, what).tables["amplicons"]["dyes"]
    if distribution == "fixed":
        assert set(dyes) == {50}
    else:
        assert abs(dyes.mean() - 50) < 4 * math.sqrt(50 / dyes.size)
        assert abs(dyes.var() / 50 - 1) < 4 * math.sqrt(2 / dyes.size)


# ---------------------------------------------------------------- which dye in which round


def test_dyes_spell_the_barcode(labels: NDArray[np.uint64]) -> None:
    """In each round and letter, the dyes in the image are those of the amplicons whose cells have that letter then."""
    found = made(labels, simulation())
    barcode = dict(zip(found.tables["barcodes"]["id"].tolist(), found.tables["barcodes"]["barcode"], strict=True))
    assert found.image.shape[:2] == (3, 3)  # rounds; stain, A, C
    inner = np.ones(len(found.tables["amplicons"]["cell"]), bool)
    for axis, voxel, n, pixel in zip("zyx", VOXEL_NM, labels.shape, (125, 50, 50), strict=True):
        place = found.tables["amplicons"][f"{axis}_nm"]
        inner &= (place > 50) & (place < n * voxel // pixel * pixel - 50)
    assert inner.mean() > 0.5
    for number in range(3):
        for channel, letter in ((1, "A"), (2, "C")):
            image = found.image[number, channel]
            lit = np.array([barcode[c][number] == letter for c in found.tables["amplicons"]["cell"].tolist()])
            assert (
                found.tables["amplicons"]["dyes"][lit & inner].sum()
                <= image.sum()
                <= found.tables["amplicons"]["dyes"][lit].sum()
            )
    np.testing.assert_array_equal(found.image[0, 0], found.image[1, 0])
    total = found.image[:, 1:].sum(axis=1)
    np.testing.assert_array_equal(total[0], total[2])  # the same dyes' places in every round


def test_random_letters_are_uniform_and_independent_of_company() -> None:
    ids = np.arange(1, 4001, dtype=np.uint64) << np.uint64(30)
    codes = random_codes(ids, 15, 4, 9)
    for r in range(15):
        assert abs(np.bincount(codes[:, r], minlength=4) - 1000).max() < 4 * math.sqrt(750)
    pairs = np.bincount(codes[:, 0] * 4 + codes[:, 1], minlength=16)
    assert abs(pairs - 250).max() < 5 * math.sqrt(250)
    np.testing.assert_array_equal(random_codes(ids[100:110], 15, 4, 9), codes[100:110])
    assert (random_codes(ids, 15, 4, 10) != codes).any()


def test_a_share_of_the_cells_carries_a_barcode(labels: NDArray[np.uint64]) -> None:
    found = made(labels, simulation(cell_fraction=0.5))
    assert 0 < len(found.tables["barcodes"]["id"]) < len(found.cells["id"])
    assert set(found.tables["amplicons"]["cell"].tolist()) <= set(found.tables["barcodes"]["id"].tolist())


def write_codebook(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_codebook_of_a_file(labels: NDArray[np.uint64], tmp_path: Path) -> None:
    some = sorted(set(np.unique(labels).tolist()) - {0})[:5]
    text = "id,barcode\n" + "".join(f"{i},{'ACC' if n % 2 else 'CAA'}\n" for n, i in enumerate(some))
    path = write_codebook(tmp_path / "codes.csv", text)
    with pytest.warns(UserWarning, match=r"7 cells are not in the codebook.*add lines"):
        found = made(labels, simulation(codebook=path))
    assert dict(zip(found.tables["barcodes"]["id"].tolist(), found.tables["barcodes"]["barcode"], strict=True)) == {
        i: "ACC" if n % 2 else "CAA" for n, i in enumerate(some)
    }
    assert set(found.tables["amplicons"]["cell"].tolist()) <= set(some)


def test_hash_knows_the_content_of_the_codebook(tmp_path: Path) -> None:
    phantom = {"kind": "phantom", "shape": [20, 40, 40]}
    a = simulation(phantom, codebook=write_codebook(tmp_path / "a.csv", "id,barcode\n5,ACA\n")).plan()
    b = simulation(phantom, codebook=write_codebook(tmp_path / "b.csv", "barcode,id\nACA,5\n")).plan()
    c = simulation(phantom, codebook=write_codebook(tmp_path / "c.csv", "id,barcode\n5,ACC\n")).plan()
    assert a.hash == b.hash != c.hash
    again = Simulation.from_mapping(a.simulation.to_mapping())
    assert again.plan().hash == a.hash
    write_codebook(tmp_path / "a.csv", "id,barcode\n5,CCC\n")
    with pytest.raises(SpecError, match=r"codebook_digest.*restore the file"):
        again.plan()


# ---------------------------------------------------------------- streams


def floors(*values: float) -> Iterator[Chunk]:
    for v in values:
        yield Chunk(None, NO_EMITTERS, v)
        yield Chunk(f"at {v}", NO_EMITTERS, -math.inf)


def test_streams_merge_by_their_floors() -> None:
    """Floors ascend, and every chunk follows the very floor that it followed in its own stream."""
    merged = list(in_order([floors(0, 3, 4), floors(), floors(-2, 3.5, 9)]))
    assert [c.floor_nm for c in merged[::2]] == [-2, 0, 3, 3.5, 4, 9]
    assert [c.layer for c in merged[1::2]] == [f"at {v}" for v in (-2, 0, 3, 3.5, 4, 9)]


def test_a_stain_of_a_letter_s_dye(labels: NDArray[np.uint64]) -> None:
    """A layer may have the dye of a letter: its light is there in every round, and the letter's on top of it."""
    labels = labels[:20, 20:60, 20:60]
    data = spec(rounds=2)
    many = [{"region": "cytosol", "density_per_um3": 60}]
    data["stages"][2]["amplicons"] = many
    data["stages"][1]["layers"][0]["dye"] = "ATTO488"
    data["stages"][4]["channels"].pop(1)
    both = made(labels, Simulation.from_mapping(data), "confocal").image
    none = [{"region": "cytosol", "density_per_um3": 1e-9}]
    data["stages"][2]["amplicons"] = none
    stain = made(labels, Simulation.from_mapping(data), "confocal").image
    np.testing.assert_array_equal(stain[0], stain[1])
    apart = [made(labels, simulation(rounds=2, amplicons=sites), "confocal").image[:, 0] for sites in (many, none)]
    np.testing.assert_allclose(both[:, 0] - stain[:, 0], apart[0] - apart[1], atol=2e-5 * both.max())
    assert (apart[0] - apart[1]).max() > 0.1 * both.max()


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dyes": {"A": "ATTO488", "C": "ATTO999"}}, r"ATTO999.*"),
        ({"dyes": {"AB": "ATTO488"}}, r"'AB'.*one character"),
        ({"dyes": {"A": "ATTO488", "C": "ATTO488"}}, r"two letters have the dye ATTO488"),
        ({"dyes": {}}, r"dyes"),
        ({"rounds": 0}, r"rounds"),
        ({"amplicons": []}, r"amplicons"),
        ({"amplicons": [{"region": "soma", "density_per_um3": 1}]}, r"'soma'.*does not exist.*membrane, cytosol"),
        ({"amplicons": [{"region": "cytosol", "density_per_um3": 1}] * 2}, r"'cytosol' twice"),
        ({"amplicons": [{"region": "cytosol"}]}, r"density_per_um3"),
        ({"dyes": dict(zip("ACGT", ("ATTO488", "ATTO550", "ATTO647N", "ATTO425"), strict=True))}, r"4 letters.*3 channels"),
        ({"codebook_digest": "00"}, r"codebook_digest .*without a codebook"),
    ],
)  # fmt: skip
def test_bad_spec(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        simulation(**changes)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,barcode\n5,ACAC\n", r"line 2.*'ACAC' of cell 5 has 4 letters, but there are 3 rounds"),
        ("id,barcode\n5,AC\n", r"has 2 letters"),
        ("id,barcode\n5,AXA\n", r"letter 'X'.*has no dye.*A, C"),
        ("id,barcode\n5,ACA\n5,CCC\n", r"line 3.*cell 5 "),
        ("id,barcode\n0,ACA\n", r"line 2.*id 0 "),
        ("id,barcode\nfive,ACA\n", r"line 2.*id 'five' "),
        ("cell,code\n5,ACA\n", r"columns cell, code, .*id and barcode"),
        ("", r"\(none\)"),
        ("id,barcode\n", r"lists no cell"),
        ("id,barcode\n5\n", r"has 0 letters"),
        (None, r"cannot be read.*columns id,barcode"),
    ],
)
def test_bad_codebook(text: str | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match=told):
        simulation({"kind": "phantom", "shape": [20, 40, 40]}, codebook=str(path)).plan()


def test_bad_places() -> None:
    data = spec()
    data["stages"].insert(1, data["stages"].pop(2))
    with pytest.raises(SpecError, match="emitters"):
        Simulation.from_mapping(data)
    data = spec()
    data["stages"].insert(3, barcodes())
    with pytest.raises(SpecError, match="two stages barcodes"):
        Simulation.from_mapping(data)
    data = spec()
    data["stages"][1]["layers"][0]["name"] = "amplicons_A"
    with pytest.raises(SpecError, match="name that amplicons go by"):
        Simulation.from_mapping(data)


def test_amplicons_nowhere_are_told_of(labels: NDArray[np.uint64]) -> None:
    with pytest.warns(UserWarning, match=r"no amplicons.*check.*regions"):
        made(labels, simulation(amplicons=[{"region": "cytosol", "density_per_um3": 1e-9}]))


def test_defaults_are_those_of_the_experiment() -> None:
    stage = Barcodes.model_validate({k: v for k, v in barcodes().items() if k != "stage"})
    assert (stage.diameter_nm, stage.dyes_per_amplicon, stage.letters) == (400, 50, "AC")
