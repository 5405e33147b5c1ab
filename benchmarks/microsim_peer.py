"""microsim on the same labels. Run in a separate environment with microsim and tensorstore.

python -m benchmarks.microsim_peer LABELS.zarr DYE.json OUT.zarr
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import tensorstore
from microsim import schema as ms  # type: ignore[import-not-found]
from microsim.schema.optical_config import LightSource, OpticalConfig  # type: ignore[import-not-found]
from microsim.schema.optical_config.filter import Placement, SpectrumFilter  # type: ignore[import-not-found]
from microsim.schema.sample import Fluorophore, FluorophoreDistribution  # type: ignore[import-not-found]
from microsim.schema.spectrum import Spectrum  # type: ignore[import-not-found]
from numpy.typing import NDArray

from benchmarks.membranes import DYES_PER_VOXEL, FACTOR, VOXEL_NM, dyes

LEVELS = 4


def main() -> None:
    """Read, simulate, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels")
    parser.add_argument("dye", type=Path)
    parser.add_argument("out")
    parser.add_argument(
        "--grid-nm", nargs=3, type=float, metavar=("Z", "Y", "X"), help="expanded; left out, the voxels"
    )
    parser.add_argument("--downscale", nargs=3, type=int, default=(4, 1, 1), help="of the grid to pixels")
    given = parser.parse_args()
    told = json.loads(given.dye.read_text())
    labels = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(Path(given.labels).resolve() / "0")}}
    ).result()
    voxel_nm = [v * FACTOR for v in VOXEL_NM]
    grid_nm = given.grid_nm or voxel_nm
    ids = np.asarray(labels.read().result())
    if given.grid_nm:
        index = []
        for length, voxel, node, step in zip(ids.shape, voxel_nm, grid_nm, given.downscale, strict=True):
            nodes = int(length * voxel / node / step) * step
            index.append(((np.arange(nodes) + 0.5) * node / voxel).astype(int))
        ids = ids[np.ix_(*index)]
    face = grid_nm[0] * grid_nm[1] / (voxel_nm[0] * voxel_nm[1])
    truth = dyes(ids, (1,), DYES_PER_VOXEL * face)
    del ids
    dye = Fluorophore(
        name=told["name"],
        excitation_spectrum=Spectrum(wavelength=told["excitation"][0], intensity=told["excitation"][1]),
        emission_spectrum=Spectrum(wavelength=told["emission"][0], intensity=told["emission"][1]),
        extinction_coefficient=told["extinction_per_M_per_cm"],
        quantum_yield=told["quantum_yield"],
        lifetime_ns=told["lifetime_ns"],
    )
    nm = np.arange(400, 701)
    low, high = told["band_nm"]
    band = Spectrum(wavelength=nm, intensity=((nm >= low) & (nm <= high)).astype(float))
    channel = OpticalConfig(
        name="green",
        filters=[SpectrumFilter(name="band", transmission=band, placement=Placement.EM_PATH)],
        lights=[LightSource.laser(told["laser_wavelength_nm"])],
        power=1000.0,  # W/cm^2, for about as many photons as the others
    )
    simulation = ms.Simulation(
        truth_space=ms.ShapeScaleSpace(shape=truth.shape, scale=tuple(n / 1000 for n in grid_nm)),
        output_space={"downscale": tuple(given.downscale)},
        sample=ms.Sample(
            labels=[FluorophoreDistribution(distribution={"type": "fixed-array", "array": truth}, fluorophore=dye)]
        ),
        modality=ms.Confocal(pinhole_au=1),
        objective_lens=ms.ObjectiveLens(
            # the alias that sets the aperture, and the name that its check reads; with one alone it is 1.4 and the image NaN
            na=told["numerical_aperture"],
            numerical_aperture=told["numerical_aperture"],
            immersion_medium_ri=told["refractive_index"],
            immersion_medium_ri_spec=told["refractive_index"],
            specimen_ri=told["refractive_index"],
        ),
        channels=[channel],
        detector=ms.CameraCMOS(read_noise=1.5, bit_depth=16, full_well=65_000, offset=100),
        exposure_ms=6.0,
        settings=ms.Settings(np_backend="numpy", cache=False, random_seed=1),
    )
    image = np.asarray(simulation.run())[0]
    if not (np.isfinite(image).all() and image.std() > 0):
        raise SystemExit("microsim computed with NaN: its image is no image, and its time no time")
    for level in range(LEVELS):
        write(image, Path(given.out) / str(level))
        z, y, x = (n // 2 for n in image.shape)
        cells = image[: 2 * z, : 2 * y, : 2 * x].reshape(z, 2, y, 2, x, 2)
        image = np.rint(cells.mean(axis=(1, 3, 5), dtype=np.float32)).astype(np.uint16)


def write(image: NDArray[np.uint16], path: Path) -> None:
    """Write one level of the pyramid."""
    stored = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path.resolve())}},
        create=True,
        dtype=image.dtype,
        shape=image.shape,
        chunk_layout=tensorstore.ChunkLayout(chunk_shape=np.minimum(image.shape, (32, 128, 128))),
    ).result()
    stored.write(image).result()


if __name__ == "__main__":
    main()
