"""Draw alignment.png: two rounds of a specimen over each other, before and after `simexm align`.

    python -m docs.pictures.alignment FOLDER

FOLDER holds easifish_fix_bin2.tif, easifish_mov_bin2.tif and easifish_pair.json: nuclei of two EASI-FISH rounds from the
resources of bigstream, Copyright (c) 2023 Howard Hughes Medical Institute, BSD 3-Clause.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from matplotlib.figure import Figure
from numpy.typing import NDArray

import simexm
from simexm.analysis.registration.images import Picture, pulled
from simexm.analysis.registration.transform import Frame, Transform
from simexm.geometry.grid import three


def main(folder: Path) -> None:
    """Align the pair, and draw one plane."""
    voxel = three(json.loads((folder / "easifish_pair.json").read_text())["spacing_um_zyx"])
    fixed, moving = (tifffile.imread(folder / f"easifish_{name}_bin2.tif") for name in ("fix", "mov"))
    found = simexm.align(fixed, moving, voxel_um=voxel)
    frames = [Frame(three(v.shape), voxel) for v in (fixed, moving)]
    before, _ = pulled(Picture(moving.astype(np.float32), frames[1]), Transform(), frames[0])
    plane = fixed.shape[0] // 2
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, image, title in zip(
        figure.subplots(1, 2), (before, found.image), ("as imaged", "after simexm align"), strict=True
    ):
        one, other = (stretched(v[plane]) for v in (fixed, image))
        axes.imshow(
            np.stack([other, one, other], axis=-1), extent=(0, fixed.shape[2] * voxel[2], fixed.shape[1] * voxel[1], 0)
        )
        name = "identity" if title == "as imaged" else ""
        axes.set_title(f"{title}: correlation {found.scores['correlation', name]:.2f}", fontsize=10)
        axes.set_xlabel("x, um")
    figure.savefig(Path(__file__).with_name("alignment.png"), dpi=90)


def stretched(plane: NDArray[Any]) -> NDArray[np.float64]:
    """A plane between black and white: its 20th and 99.7th percentile where it has values."""
    low, high = np.percentile(plane[plane > 0], [20, 99.7])
    return np.asarray(np.clip((plane - low) / (high - low), 0, 1), np.float64)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
