"""The laws on tissue: a crop of the real cortex and a crop of the phantom, both with ids that touch as they do in life."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy.stats import poisson

from simexm import Simulated, Simulation, simulate
from simexm.geometry.grid import Box, exact3
from simexm.ingestion.ingest import ingest
from simexm.kernels.labels.cells import CellIndex
from simexm.kernels.labels.regions import MEMBRANE, regions_of
from simexm.sources.phantom import Phantom
from tests.run.conftest import VOXEL_NM, fingerprint, spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

SHAPE = (48, 96, 96)


@pytest.fixture(scope="module", params=["phantom", pytest.param("cortex", marks=pytest.mark.data)])
def tissue(request: pytest.FixtureRequest) -> NDArray[Any]:
    """Cell ids, (z, y, x), of 40 x 32 x 32 nm voxels."""
    if request.param == "phantom":
        opened = Phantom(shape=(400, 400, 400), voxel_size_nm=VOXEL_NM).open()
        return opened.read(Box.at((150, 120, 130), SHAPE))
    volume = tifffile.imread(request.getfixturevalue("cortex_tif"), key=range(300, 300 + SHAPE[0]))
    return np.ascontiguousarray(volume[:, 260 : 260 + SHAPE[1], 200 : 200 + SHAPE[2]])


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation.from_mapping(spec("memory", keep=["expected", "labelled", "emitters"]))


@pytest.fixture(scope="module")
def simulated(tissue: NDArray[Any], simulation: Simulation) -> Simulated:
    return simulate(tissue, simulation, voxel_size_nm=VOXEL_NM)


def test_every_membrane_voxel(tissue: NDArray[Any]) -> None:
    """By an independent test of 26 neighbours; the volume's border is no neighbour."""
    padded = np.pad(tissue, 1, mode="edge")
    touching = np.zeros(tissue.shape, bool)
    for dz in range(3):
        for dy in range(3):
            for dx in range(3):
                window = padded[dz : dz + SHAPE[0], dy : dy + SHAPE[1], dx : dx + SHAPE[2]]
                touching |= window != tissue
    found = regions_of(CellIndex().add(tissue), 26) == MEMBRANE
    np.testing.assert_array_equal(found, touching & (tissue != 0))
    assert 0.05 < found.mean() < 0.9


def test_labels_by_exact_arithmetic(tissue: NDArray[Any], simulated: Simulated) -> None:
    index = []
    for pixels, voxels, pixel, voxel in zip(
        simulated.plan.shape, SHAPE, ("450", "162.5", "162.5"), VOXEL_NM, strict=True
    ):
        pitch = Fraction(pixel) / 4
        assert pixels == int(voxels * voxel / pitch)
        index.append([int((p + Fraction(1, 2)) * pitch / voxel) for p in range(pixels)])
    expected = tissue[np.ix_(*index)]
    np.testing.assert_array_equal(simulated.labels["cells"], expected)
    labelled = np.unique(simulated.labels["membrane"])
    np.testing.assert_array_equal(simulated.labels["membrane"], np.where(np.isin(expected, labelled), expected, 0))
    assert 2 < labelled.size < np.unique(expected).size


@pytest.mark.parametrize("tile", [(5, 40, 33), (64, 17, 256)])
def test_no_seams(
    tissue: NDArray[Any], simulation: Simulation, simulated: Simulated, tile: tuple[int, int, int]
) -> None:
    """Invariant 2: another tile changes the noise-free image by less than 2e-6 of its maximum, and hardly a count."""
    other = simulate(tissue, simulation.with_tile(tile), voxel_size_nm=VOXEL_NM)
    assert other.plan.tile != simulated.plan.tile
    np.testing.assert_array_equal(other.kept["labelled"], simulated.kept["labelled"])
    for c in range(2):
        a, b = simulated.kept["expected"][c].astype(float), other.kept["expected"][c].astype(float)
        assert np.abs(a - b).max() < 2e-6 * a.max()
        differ = simulated.image[c].astype(int) - other.image[c].astype(int)
        assert np.abs(differ).max() <= 1
        # a share of expected size s of n pixels is a Poisson number about s * n; one in 10^5 lies above this quantile
        share = 2 * np.abs(a - b).mean() + 1e-6
        assert np.count_nonzero(differ) <= poisson.ppf(1 - 1e-5, share * differ.size)


def test_a_crop_draws_the_same_dyes(tissue: NDArray[Any], simulation: Simulation, simulated: Simulated) -> None:
    box = Box((9, 21, 30), (41, 70, 75))
    crop = {"offset": box.start, "shape": box.shape}
    cropped = simulate(tissue, simulation.replace(crop=crop), voxel_size_nm=VOXEL_NM)

    def emitters(found: Simulated, origin: tuple[int, int, int]) -> NDArray[Any]:
        columns = [found.emitters[f"{a}_nm"] + o * v for a, o, v in zip("zyx", origin, VOXEL_NM, strict=True)]
        ids = found.emitters["cell"].astype(float)
        rows = np.round(np.stack([*columns, ids, found.emitters["dyes"].astype(float)], axis=1), 6)
        return rows[np.lexsort(rows.T)]

    inside, whole = emitters(cropped, (0, 0, 0)), emitters(simulated, (0, 0, 0))
    assert 500 < len(inside) < len(whole)
    assert set(map(tuple, inside)) <= set(map(tuple, whole))
    # a margin of the longest linker apart, the whole has no dye in the crop that the crop lacks
    low, high = (np.array(side) * VOXEL_NM for side in (box.start, box.stop))
    margin = 4 * 6 + 1
    deep = ((whole[:, :3] > low + margin) & (whole[:, :3] < high - margin)).all(axis=1)
    assert set(map(tuple, whole[deep])) <= set(map(tuple, inside))


def test_table_of_cells(tissue: NDArray[Any], simulated: Simulated) -> None:
    ids, counts = np.unique(tissue[tissue != 0], return_counts=True)
    np.testing.assert_array_equal(simulated.cells["id"], ids)
    np.testing.assert_array_equal(simulated.cells["voxels"], counts)
    for layer in ("membrane", "cytosol"):
        mine = (simulated.emitters["layer"] == layer) & (simulated.emitters["cell"] != 0)
        dyes = [int(simulated.emitters["dyes"][mine & (simulated.emitters["cell"] == i)].sum()) for i in ids]
        np.testing.assert_array_equal(simulated.cells[f"dyes_{layer}"], dyes)


@pytest.mark.slow
def test_stored_tissue_gives_the_same_bytes(
    tissue: NDArray[Any], simulation: Simulation, simulated: Simulated, tmp_path: Path
) -> None:
    """Ingested and run on two workers, against arrays in memory."""
    tifffile.imwrite(tmp_path / "t.tif", tissue, compression="zlib")
    ingest(tmp_path / "t.tif", tmp_path / "t.zarr", exact3(VOXEL_NM))
    result = simulation.replace(source=str(tmp_path / "t.zarr")).run(tmp_path / "o.zarr", workers=2, quiet=True)
    np.testing.assert_array_equal(np.asarray(result.array()[...]), simulated.image)
    assert len(fingerprint(result.path)) > 50
