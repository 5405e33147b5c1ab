"""Camera counts: histograms, and each layer's signal-to-noise ratio."""

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
from simexm.stages.roles import Detector
from simexm.view.report.ink import GRID, MUTED, in_powers, new_figure, svg
from simexm.view.run_record import RunRecord
from simexm.view.scene import ChannelDisplay

BOX = 64
"""Largest side of a sampled box, pixels; at most three boxes along each axis, however large the image is."""
FEWEST = 50
"""Fewest pixels for a mean."""


def draw_histogram(tint: ChannelDisplay, histogram: NDArray[np.int64], shade: str) -> str:
    """Draw a histogram of counts, both axes logarithmic, with the display window shaded."""
    figure, axes = new_figure(height=2.0)
    bins = np.flatnonzero(histogram)
    upper = 2.0 ** ((np.arange(bins[0], bins[-1] + 1) - 1) / 4)  # draws bin 0, of zero counts, below 1
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
    """One layer in the channel that sees its dye best, photo-electrons per pixel."""

    layer: str
    dye: str
    channel: str
    where: str
    """Part of the labelled cells that the layer covers."""
    signal_e: float
    """Mean of the labelled pixels, minus `background_e`."""
    background_e: float
    """Mean of the pixels outside labelled cells, or around a labelled mask: stray light, haze, crosstalk and unspecific
    label."""
    noise_e: float
    """Standard deviation of the detector for the mean of the labelled pixels."""
    pixels: int
    """Number of labelled pixels in the sample."""

    @property
    def ratio(self) -> float:
        """Signal-to-noise ratio of one pixel."""
        return self.signal_e / self.noise_e if self.noise_e > 0 else math.inf


def strengths(result: Result, run: RunRecord) -> tuple[list[Strength], list[str]]:
    """Compute the signal-to-noise ratio of each layer; return also the layers without enough pixels.

    Both are empty for the 2017 model, which draws noise before it blurs, and for results that stop before the microscope.
    """
    quantity = result.provenance["quantity"]
    detector = run.simulation.detector if quantity == "image" else None
    pairs = run.record["optics"].get("pairs", [])
    if quantity not in ("image", "expected") or not all("electrons_per_dye_in_focus" in p for p in pairs):
        return [], []
    names = [c["label"] for c in result.channels]
    found, untold = [], []
    for layer in run.simulation.labeller.named_layers:
        own = [p for p in pairs if p["dye"] == layer.dye and p["channel"] in names]
        best = max(own, key=lambda p: float(p["electrons_per_dye_in_focus"]), default=None)
        sums = _sums(result, run, detector, layer.name, layer.region, names.index(best["channel"])) if best else None
        if best is None or sums is None:
            untold.append(layer.name)
            continue
        (pixels, lit), (_, dark) = ((n, total / n) for n, total in sums)
        noise = detector.noise_e(lit, run.plan.context) if detector else math.sqrt(max(lit, 0.0))
        where = {"membrane": "cell borders", "cytosol": "inside cells"}.get(layer.region, layer.region)
        found.append(Strength(layer.name, layer.dye, best["channel"], where, lit - dark, dark, noise, int(pixels)))
    return found, untold


def _sums(
    result: Result, run: RunRecord, detector: Detector | None, layer: str, region: str, channel: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return number of pixels and sum of photo-electrons, of layer and background; None if either has too few pixels."""
    on, off, rest = np.zeros(2), np.zeros(2), np.zeros(2)
    image = result.array()
    for box in _boxes(image.shape[1:]):
        chosen = elements(result.array(0, f"labels/{layer}"), box.slices) != 0
        inside = _region(result, run, layer, region, box)
        if inside is None:
            return None
        light = np.asarray(image[(channel, *box.slices)], np.float64)
        if detector:
            light = detector.electrons(light, box, run.plan.context)
        for into, mask in ((on, chosen & inside), (off, ~chosen), (rest, ~(chosen & inside))):
            into += mask.sum(), light[mask].sum()
    if region not in ("membrane", "cytosol") or off[0] < FEWEST:
        off = rest  # the surroundings of a mask; or all cells are labelled
    return (on, off) if min(on[0], off[0]) >= FEWEST else None


def _boxes(shape: Sequence[int]) -> Iterator[Box]:
    """Yield boxes spread evenly over the image."""
    axes = []
    for n in shape:
        free = n - min(BOX, n)
        last = min(3, -(-n // min(BOX, n))) - 1
        axes.append([round(i * free / last) for i in range(last + 1)] if last else [free // 2])
    for z, y, x in itertools.product(*axes):
        yield Box.at((z, y, x), triple(min(BOX, n) for n in shape))


def _region(result: Result, run: RunRecord, layer: str, region: str, box: Box) -> NDArray[np.bool_] | None:
    """Return the pixels of a box whose centre lies in a region; None if its mask cannot be read."""
    if region in ("membrane", "cytosol"):
        volume = Box.of_shape(triple(result.array(0, "labels/cells").shape))
        wide = box.grown((0, 1, 1)).intersect(volume)
        edge: NDArray[np.bool_] = _edges(elements(result.array(0, "labels/cells"), wide.slices))[
            box.relative_to(wide.start).slices
        ]
        return edge if region == "membrane" else np.logical_not(edge)
    if f"{layer}_{region}" in result.label_names:
        return elements(result.array(0, f"labels/{layer}_{region}"), box.slices).astype(bool)
    if run.source is None or region not in run.source.fields:
        return None
    geometry = run.plan.geometry
    start, voxels = geometry.image_origin_nm, []
    for axis in range(3):
        size, pixel = geometry.voxel_nm[axis], geometry.pixel_tissue_nm[axis]
        first, pixels = start[axis] - geometry.origin_nm[axis], range(box.start[axis], box.stop[axis])
        voxels.append([math.floor((first + pixel * (2 * i + 1) / 2) / size) for i in pixels])
    around = Box(triple(v[0] for v in voxels), triple(v[-1] + 1 for v in voxels))
    mask: NDArray[np.bool_] = run.source.read_field(region, around)[np.ix_(*(np.array(v) - v[0] for v in voxels))]
    return mask


def _edges(cells: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels of cells with a neighbour in the plane that belongs to another cell, or to none."""
    edge: NDArray[np.bool_] = np.zeros(cells.shape, bool)
    for upper, lower in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[:, :, 1:], np.s_[:, :, :-1])):
        differs = cells[upper] != cells[lower]
        edge[upper] |= differs
        edge[lower] |= differs
    return np.asarray(edge & (cells != 0))


def totals(records: Iterator[Any]) -> Totals:
    """Add up the statistics of all blocks."""
    found = Totals()
    for record in records:
        found.add(record.result)
    return found
