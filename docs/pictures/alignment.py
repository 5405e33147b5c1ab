"""Draw `alignment.png`: two rounds of simulated nuclei over each other before and after `simexm align`, and its error.

python -m docs.pictures.alignment
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import simexm
from benchmarks.registration import nuclei_pair
from simexm.analysis.registration.images import Picture, pulled
from simexm.analysis.registration.transform import Transform


def main() -> None:
    """Align the pair, and draw one plane."""
    pair = nuclei_pair(0)
    found = simexm.align(pair.fixed, pair.moving, voxel_um=(1.0, 1.0, 1.0))
    before, _ = pulled(Picture(pair.moving, pair.frame), Transform(), pair.frame)
    plane = pair.fixed.shape[0] // 2
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    axes = figure.subplots(1, 3)
    shown = ((before, "as imaged", "identity"), (found.image, "after simexm align", ""))
    for place, (image, title, subset) in zip(axes, shown, strict=False):
        one, other = (stretched(v[plane]) for v in (pair.fixed, image))
        place.imshow(np.stack([other, one, other], axis=-1))
        place.set_title(f"{title}: correlation {found.scores['correlation', subset]:.2f}", fontsize=10)
    error = np.linalg.norm(found.transform(pair.frame.centres()) - pair.truth, axis=0)[plane]
    drawn = axes[2].imshow(error, cmap="magma", vmin=0, vmax=3)
    axes[2].set_title("distance from the truth, voxels", fontsize=10)
    figure.colorbar(drawn, ax=axes[2], shrink=0.8)
    for place in axes:
        place.set_xticks([])
        place.set_yticks([])
    figure.savefig(Path(__file__).with_name("alignment.png"), dpi=90)


def stretched(plane: NDArray[Any]) -> NDArray[np.float64]:
    """A plane between black and white: its 20th and 99.7th percentile where it has values."""
    low, high = np.percentile(plane[plane > 0], [20, 99.7])
    return np.asarray(np.clip((plane - low) / (high - low), 0, 1), np.float64)


if __name__ == "__main__":
    main()
