"""What the camera counted: histograms, pixels cut off, and each layer's signal over the noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, triple
from simexm.result.result import Result, elements
from simexm.run.totals import Totals
from simexm.view.making import Making
from simexm.view.report.ink import GRID, MUTED, in_powers, new_figure, svg
from simexm.view.scene import Tint

BOX = 64
"""Pixels a side of what is looked at, at most; no more than three such boxes along an axis, whatever the image's size."""
FEWEST = 50
"""Pixels from which a mean is told."""


def draw_histogram(tint: Tint, histogram: NDArray[np.int64], shade: str) -> str:
    """Pixels over counts, both in powers, and the window that viewers show."""
    figure, axes = new_figure(height=2.0)
    bins = np.flatnonzero(histogram)
    upper = 2.0 ** ((np.arange(bins[0], bins[-1] + 1) - 1) / 4)  # where bin 0, of no count, is drawn below 1
    lower = upper / 2**0.25
    axes.axvspan(max(tint.window[0], lower[0] / 2), tint.window[1], color=GRID, alpha=0.6, lw=0)
    axes.bar(lower, histogram[bins[0] : bins[-1] + 1], width=upper - lower, align="edge", color=shade, lw=0)
    axes.set_xscale("log", base=10)
    axes.set_yscale("log", base=10)
    axes.set_xlim(lower[0] / 1.1, upper[-1] * 1.1)
    axes.set_xlabel("camera counts; shaded: as displayed")
    axes.set_ylabel("pixels")
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    in_powers(axes.yaxis)
    axes.tick_params(which="minor", left=False, bottom=False)
    axes.tick_params(colors=MUTED)
    return svg(figure, f"Histogram of channel {tint.name}, all pixels, in bins of a quarter of an octave")


@dataclass(frozen=True)
class Strength:
    """One layer in the channel that sees its dye best, photo-electrons per pixel.

    Attributes
    ----------
    layer, dye, channel
        Names.
    where
        In which pixels of labelled cells the layer is.
    signal_e
        Mean of the pixels that are labelled less `background_e`.
    background_e
        Mean of the pixels in no cell that the layer labels, or around a mask that it labels: stray light, haze, crosstalk and
        unspecific label.
    noise_e
        Standard deviation that the detector gives to a pixel with the labelled pixels' mean.
    pixels
        That are labelled, of those looked at.
    """

    layer: str
    dye: str
    channel: str
    where: str
    signal_e: float
    background_e: float
    noise_e: float
    pixels: int

    @property
    def ratio(self) -> float:
        """Signal over noise of one pixel."""
        return self.signal_e / self.noise_e if self.noise_e > 0 else math.inf


def strengths(result: Result, making: Making) -> tuple[list[Strength], list[str]]:
    """Signal to noise of every layer that has enough labelled pixels, and the layers of which it cannot be told.

    None where the model has no such noise: that of 2017, which draws noise before it blurs, and results that stop before the
    microscope.
    """
    quantity, camera = result.provenance["quantity"], making.simulation.camera
    pairs = making.record["optics"].get("pairs", [])
    if quantity not in ("image", "expected") or not all("electrons_per_dye_in_focus" in p for p in pairs):
        return [], []
    gain, offset, excess, read = 1.0, 0.0, 1.0, 0.0
    if quantity == "image" and camera is not None:
        gain, offset = camera.gain_counts_per_e, camera.offset_counts
        excess, read = camera.excess_noise, camera.read_noise_e
    names = [c["label"] for c in result.channels]
    found, untold = [], []
    for layer in making.simulation.labeller.named_layers:
        own = [p for p in pairs if p["dye"] == layer.dye and p["channel"] in names]
        best = max(own, key=lambda p: float(p["electrons_per_dye_in_focus"]), default=None)
        sums = _sums(result, making, layer.name, layer.region, names.index(best["channel"])) if best else None
        if best is None or sums is None:
            untold.append(layer.name)
            continue
        (pixels, lit), (_, dark) = ((n, (total / n - offset) / gain) for n, total in sums)
        noise = math.sqrt(max(lit, 0.0) * excess + read**2)
        where = {"membrane": "cell borders", "cytosol": "inside cells"}.get(layer.region, layer.region)
        found.append(Strength(layer.name, layer.dye, best["channel"], where, lit - dark, dark, noise, int(pixels)))
    return found, untold


def _sums(
    result: Result, making: Making, layer: str, region: str, channel: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Number of pixels and sum of their counts, where the layer is and in the background; None if either is too small."""
    on, off, rest = np.zeros(2), np.zeros(2), np.zeros(2)
    image = result.array()
    for box in _boxes(image.shape[1:]):
        chosen = elements(result.array(0, f"labels/{layer}"), box.slices) != 0
        inside = _region(result, making, layer, region, box)
        if inside is None:
            return None
        counts = np.asarray(image[(channel, *box.slices)], np.float64)
        for into, mask in ((on, chosen & inside), (off, ~chosen), (rest, ~(chosen & inside))):
            into += mask.sum(), counts[mask].sum()
    if region not in ("membrane", "cytosol") or off[0] < FEWEST:
        off = rest  # a mask's own surroundings; and where every cell is labelled, there is nothing else
    return (on, off) if min(on[0], off[0]) >= FEWEST else None


def _boxes(shape: Sequence[int]) -> Iterator[Box]:
    """Boxes spread evenly over the image."""
    axes = []
    for n in shape:
        size = min(BOX, n)
        number = min(3, -(-n // size))
        axes.append(
            [round(i * (n - size) / max(1, number - 1)) if number > 1 else (n - size) // 2 for i in range(number)]
        )
    for z, y, x in itertools.product(*axes):
        yield Box.at((z, y, x), triple(min(BOX, n) for n in shape))


def _region(result: Result, making: Making, layer: str, region: str, box: Box) -> NDArray[np.bool_] | None:
    """Pixels of a box whose centre lies in a region; None where its mask is out of reach."""
    if region in ("membrane", "cytosol"):
        volume = Box.of_shape(triple(result.array(0, "labels/cells").shape))
        wide = box.grown((0, 1, 1)).intersect(volume)
        edge: NDArray[np.bool_] = _edges(elements(result.array(0, "labels/cells"), wide.slices))[
            box.relative_to(wide.start).slices
        ]
        return edge if region == "membrane" else np.logical_not(edge)
    if f"{layer}_{region}" in result.label_names:
        return np.not_equal(elements(result.array(0, f"labels/{layer}_{region}"), box.slices), 0)
    if making.source is None or region not in making.source.fields:
        return None
    geometry = making.plan.geometry
    start, voxels = geometry.image_origin_nm, []
    for axis in range(3):
        size, pixel = geometry.voxel_nm[axis], geometry.pixel_tissue_nm[axis]
        first = start[axis] - geometry.origin_nm[axis]
        voxels.append(
            [math.floor((first + pixel * (2 * i + 1) / 2) / size) for i in range(box.start[axis], box.stop[axis])]
        )
    around = Box(triple(v[0] for v in voxels), triple(v[-1] + 1 for v in voxels))
    mask: NDArray[np.bool_] = making.source.read_field(region, around)[np.ix_(*(np.array(v) - v[0] for v in voxels))]
    return mask


def _edges(cells: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels of which a neighbour in the plane belongs to another cell, or to none."""
    edge: NDArray[np.bool_] = np.zeros(cells.shape, bool)
    for axis in (1, 2):
        first, second = (
            tuple(s if a == axis else slice(None) for a in range(3)) for s in (slice(1, None), slice(None, -1))
        )
        unlike = cells[first] != cells[second]
        edge[first] |= unlike
        edge[second] |= unlike
    return np.asarray(edge & (cells != 0))


def totals(records: Iterator[Any]) -> Totals:
    """What all blocks add up to."""
    found = Totals()
    for record in records:
        found.add(record.result)
    return found
