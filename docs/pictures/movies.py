"""Draw `movies.png`, a movie of calcium and its truth, from the result of the page's spec.

python -m docs.pictures.movies movie.zarr
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import zarr

from simexm.result.result import Result


def draw(movie: Path, picture: Path) -> None:
    """A frame, the light without noise, what changes most, and traces of the cells that change most."""
    import matplotlib.pyplot as plt

    result = Result.open(movie)
    counts, light = (np.asarray(result.series(0, of))[:, 0, 0].astype(float) for of in ("", "expected"))
    bright = np.asarray(zarr.open_group(movie / "activity", mode="r")["brightness"])
    figure, (first, second, third, last) = plt.subplots(1, 4, figsize=(15, 3.9), layout="constrained")
    for axes, image, title in (
        (first, counts[0], "frame 1"),
        (second, light[0], "its light without noise"),
        (third, (light - np.median(light, axis=0)).max(axis=0), "largest rise above the median"),
    ):
        axes.imshow(image, cmap="gray", vmin=np.quantile(image, 0.01), vmax=np.quantile(image, 0.998))
        axes.set_title(title)
        axes.set_axis_off()
    seconds = result.acquisition.time.coordinates if result.acquisition.time else ()
    for n, cell in enumerate(np.argsort(-bright.std(axis=1))[:5]):
        trace = bright[cell]
        last.plot(seconds, (trace - trace.min()) / (trace.max() - trace.min()) + 1.1 * n, color="tab:green")
    last.set_title("brightness of five cells")
    last.set_xlabel("s")
    last.set_yticks([])
    figure.savefig(picture, dpi=70)
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(__file__).with_name("movies.png"))
