"""Draw `localisation.png` from what the example of the page wrote.

python -m docs.pictures.localisation FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import tifffile

from simexm.analysis.localisation.render import Render
from simexm.result.result import Result

FIELD = (1600.0, 3600.0, 1600.0, 3600.0)


def draw(folder: Path, picture: Path) -> None:
    """A frame, the mean of all, the true corners, and what was found, in a part of the field."""
    import matplotlib.pyplot as plt

    frames = tifffile.imread(folder / "frames.tif").astype(float)
    y0, y1, x0, x1 = FIELD
    cut = (slice(int(y0 / 100), int(y1 / 100)), slice(int(x0 / 100), int(x1 / 100)))
    truth = pq.read_table(folder / "truth.parquet")
    found = Result.open(folder / "found.zarr").table("localisations")
    figure, axes = plt.subplots(1, 4, figsize=(15, 4), layout="constrained")
    extent = (x0, x1, y1, y0)
    for one, image, title in (
        (axes[0], frames[7][cut], "frame 7"),
        (axes[1], frames.mean(axis=0)[cut], "mean of all frames"),
    ):
        one.imshow(image, cmap="gray", extent=extent)
        one.set_title(title)
    axes[2].set_facecolor("black")
    axes[2].plot(found["x_nm"], found["y_nm"], ",", color="tab:orange", alpha=0.6)
    axes[2].plot(truth["x_nm"], truth["y_nm"], ".", color="cyan", markersize=3)
    axes[2].set_title("true corners (cyan), found")
    axes[2].set_aspect("equal")
    settings = Render(pixel_nm=5, field_nm=FIELD)
    axes[3].imshow(settings.in_memory(folder / "found.zarr")[0] ** 0.5, cmap="inferno", extent=extent)
    axes[3].set_title("rendered, 5 nm pixels")
    for one in axes:
        one.set_xlim(x0, x1)
        one.set_ylim(y1, y0)
        one.set_xticks([])
        one.set_yticks([])
    figure.savefig(picture, dpi=70)
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(__file__).with_name("localisation.png"))
