"""Draw `deformation.png`: the same neurons expanded evenly and unevenly, and the displacement.

python -m docs.pictures.deformation
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from simexm import Simulation

PAGE = Path(__file__).parents[1] / "deformation.md"
PLANE, EVERY = 5, 12


def spec() -> dict[str, Any]:
    """The spec of the page."""
    text = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    made: dict[str, Any] = yaml.safe_load(text)
    return made


def main() -> None:
    """Write the picture beside this file."""
    uneven, even = spec(), spec()
    even["stages"][2] = {"stage": "expansion", "factor": 4}
    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    for axes, data, title in zip(
        figure.subplots(1, 3), (even, uneven, uneven), ("even", "uneven", "displacement"), strict=True
    ):
        with tempfile.TemporaryDirectory() as folder:
            result = Simulation.from_mapping(data).run(Path(folder, "out.zarr"), workers=1, quiet=True)
            image = np.asarray(result.array()[0, PLANE], np.float64)
            cells = np.asarray(result.array(of="labels/cells")[PLANE])
        axes.imshow(
            image,
            cmap="gray",
            vmin=image.min(),
            vmax=np.quantile(image, 0.995),
            alpha=0.35 if title == "displacement" else 1,
        )
        edges = (np.diff(cells, axis=0, append=cells[-1:]) != 0) | (np.diff(cells, axis=1, append=cells[:, -1:]) != 0)
        if title == "displacement":
            g = Simulation.from_mapping(data).plan().geometry
            y, x = np.mgrid[EVERY // 2 : image.shape[0] : EVERY, EVERY // 2 : image.shape[1] : EVERY]
            pixel = [float(p) for p in g.pixel_nm]
            z = np.full(y.shape, (PLANE + 0.5) * pixel[0])
            place = z, (y + 0.5) * pixel[1], (x + 0.5) * pixel[2]
            _, v, u = g.transform.invert(place)
            axes.quiver(
                4 * u / pixel[2] - 0.5, 4 * v / pixel[1] - 0.5, place[2] / pixel[2] - 4 * u / pixel[2],
                place[1] / pixel[1] - 4 * v / pixel[1], angles="xy", scale_units="xy", scale=1, color="#b02a37", width=0.004,
            )  # fmt: skip
        else:
            axes.contour(edges, levels=[0.5], colors="#1f9e89", linewidths=0.4)
        axes.set_xlim(-0.5, image.shape[1] - 0.5)
        axes.set_ylim(image.shape[0] - 0.5, -0.5)
        axes.set_title(title, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
