"""Draw `molecules.png`, a movie of switching dyes and its truth, from the result of the page's spec.

python -m docs.pictures.molecules molecules.zarr
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from simexm.result.result import Result


def draw(movie: Path, picture: Path) -> None:
    """Three frames, the sum of all, and a histogram of all places without drift."""
    import matplotlib.pyplot as plt

    result = Result.open(movie)
    counts = np.asarray(result.series())[:, 0, 0].astype(float)
    truth, shifts = result.table("localisations"), result.table("shifts").sort_by("time")
    time = truth["time"].to_numpy()
    y, x = (truth[f"{a}_nm"].to_numpy() - 1000 * shifts[f"{a}_um"].to_numpy()[time] for a in "yx")
    bins = [np.arange(2 * n + 1) * 500 * side for n, side in zip(counts.shape[1:], result.pixel_um()[1:], strict=True)]
    places, _, _ = np.histogram2d(y, x, bins)
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), layout="constrained")
    frames = [0, len(counts) // 2, len(counts) - 1]
    shown = [*((counts[n], f"frame {n}") for n in frames), (counts.sum(axis=0), "sum of all frames")]
    for axis, (image, title) in zip(axes, [*shown, (np.minimum(places, 1), "places without drift")], strict=True):
        axis.imshow(image, cmap="gray" if axis is not axes[-1] else "inferno", vmax=max(1, np.quantile(image, 0.999)))
        axis.set_title(title)
        axis.set_axis_off()
    figure.savefig(picture, dpi=70)
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(__file__).with_name("molecules.png"))
