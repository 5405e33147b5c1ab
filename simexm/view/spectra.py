"""Draw spectra of dyes with the lasers and filters of a microscope."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simexm.spectra import bands
from simexm.spectra.colour import wavelength_to_rgb
from simexm.spectra.fluorophores import Fluorophore
from simexm.spectra.lightpath import Transmission, mean_detected_nm
from simexm.spectra.spectrum import Spectrum
from simexm.stages.microscope.optics_plan import Channel
from simexm.store.atomic_file import atomic_file
from simexm.view.curves import draw_curves, has_curves
from simexm.view.dyes import DyeInChannel, LightPath, dyes_in_channels, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST_LUMINANCE = 0.32
"""Largest luminance of a colour that is readable on white."""
TOP = 1.03
_WIDTH, _LANE, _NAMES = 12.5, 0.34, 0.26
"""Width of the picture, and heights of a channel's lane and of a line of dyes' names, inches."""
_LEFT, _RIGHT = 0.07, 0.975
"""Start and end of the wavelength axis, as shares of the width."""
_ULTRAVIOLET_NM = 300.0
"""Lowest start of the wavelength axis, except for lasers: absorption below does not matter."""


_WHITE: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
_BOLD: dict[str, Any] = {"va": "center", "fontsize": 10, "fontweight": "bold"}


def ink(wavelength_nm: float) -> tuple[float, float, float]:
    """Return the colour of a wavelength, dark enough to be read on white."""
    return readable(wavelength_to_rgb(wavelength_nm))


def readable(digits: str) -> tuple[float, float, float]:
    """Darken a colour, RRGGBB, until it can be read on white."""
    rgb = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    luminance = float(rgb**2.2 @ (0.2126, 0.7152, 0.0722))
    r, g, b = rgb * min(1.0, (LARGEST_LUMINANCE / max(luminance, 1e-9)) ** (1 / 2.2))
    return float(r), float(g), float(b)


def draw_spectra(dyes: Sequence[Fluorophore], light_path: LightPath | None, path: Path, *, title: str = "") -> None:
    """Write a PNG of excitation and emission over wavelength, each dye in the colour of its emission.

    With a `light_path`, draw lasers and filters as well, and fill the emission that a filter passes of the dye that it is for.
    Below, each channel with curves shows its source, filters, dichroic and the detector.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    channels = light_path.channels if light_path else ()
    seen = dyes_in_channels(dyes, light_path) if light_path else []
    low, high = _limits(dyes, light_path)
    lanes = _name_lanes(dyes, _per_inch((low, high)))
    above = _NAMES * (max(lanes) + 1) + 0.1
    efficiency = light_path.efficiency if light_path else None
    curved = [c for c in channels if isinstance(c, Channel) and (efficiency or has_curves(c))]
    panels = [height for _ in curved for height in (0.45, 1.1)]
    heights = [_LANE * len(channels) + 0.02, above, 4.6, *panels, 0.16]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 1.15), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    height = figure.get_figheight()
    margins = {"left": _LEFT, "right": _RIGHT, "bottom": 0.6 / height, "top": 1 - 0.5 / height}
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights, hspace=0, **margins)
    lane_axes, name_axes, axes, strip = (figure.add_subplot(grid[i]) for i in (0, 1, 2, len(heights) - 1))
    shown = [figure.add_subplot(grid[4 + 2 * n]) for n in range(len(curved))]
    for each in (lane_axes, name_axes, axes, *shown, strip):
        each.set_xlim(low, high)
    for panel, channel in zip(shown, curved, strict=True):
        draw_curves(panel, channel, efficiency)
    _draw_channels(lane_axes, (name_axes, axes), channels)
    for dye, lane in zip(dyes, lanes, strict=True):
        _draw_dye(axes, dye, [s for s in seen if s.dye.name == dye.name and s.wanted], filled=light_path is None)
        _draw_name(name_axes, axes, dye, lane, max(lanes) + 1)
    _finish(axes, strip, (low, high))
    _head(figure, title)
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def _limits(dyes: Sequence[Fluorophore], light_path: LightPath | None) -> tuple[float, float]:
    """Return the wavelength range of spectra, lasers and filters, without the far ultraviolet."""
    lows = [max(d.peak_excitation_nm - 90, _ULTRAVIOLET_NM) for d in dyes]
    highs = [d.peak_emission_nm + 60 for d in dyes]
    for dye in dyes:
        emission = Spectrum.of(dye.emission)
        highs.append(float(emission.wavelength_nm[emission.value >= 0.03][-1]))
    for channel in light_path.channels if light_path else ():
        lows.append(min(channel.excitation_nm, channel.passes_nm[0]) - 60)
        highs.append(max(channel.excitation_nm, channel.passes_nm[1]) + 10)
    return float(np.floor(min(lows) / 10) * 10), float(np.ceil(max(highs) / 10) * 10)


def _per_inch(limits: tuple[float, float]) -> float:
    """Return nanometres per inch of the picture."""
    return (limits[1] - limits[0]) / ((_RIGHT - _LEFT) * _WIDTH)


def _name_lanes(dyes: Sequence[Fluorophore], nm_per_inch: float) -> list[int]:
    """Return a line for each dye's name, from 0 at the bottom, so that neighbours do not touch."""
    ends: list[float] = []
    lanes = {}
    for dye in sorted(dyes, key=lambda d: d.peak_emission_nm):
        half = nm_per_inch * (0.06 * len(dye.name) + 0.08)
        left = dye.peak_emission_nm - half
        lane = next((n for n, end in enumerate(ends) if end <= left), len(ends))
        ends[lane : lane + 1] = [dye.peak_emission_nm + half]
        lanes[dye.name] = lane
    return [lanes[d.name] for d in dyes]


def _draw_channels(lanes: Axes, others: Sequence[Axes], channels: Sequence[Any]) -> None:
    """Draw a lane for each channel with its laser and band, both continued through the spectra below."""
    lanes.set_ylim(max(len(channels), 1), 0)
    lanes.axis("off")
    limits = lanes.get_xlim()
    for n, channel in enumerate(channels):
        line, (low, high) = channel.excitation_nm, channel.passes_nm
        color, middle = ink((low + high) / 2), n + 0.5
        text, width = f"{channel.name}  {low:.4g}–{high:.4g}", _per_inch(limits)
        width *= 0.09 * len(text) + 0.1
        lanes.fill_between([low, high], n + 0.12, n + 0.88, color=color, lw=0, zorder=2)
        lanes.fill_between([low, high], n + 0.88, len(channels), color=color, alpha=0.1, lw=0, zorder=0)
        if high - low > width:
            place, side = (low + high) / 2, "center"
        elif high + width < limits[1]:
            place, side = high, "left"
        else:
            place, side = low, "right"
        inside = side == "center"
        style: dict[str, Any] = {"color": "white", "zorder": 3} if inside else {"color": color, "zorder": 1.5}
        style["bbox"] = {**_WHITE, "facecolor": "none"} if inside else _WHITE
        lanes.text(place, middle, text if inside else f" {text} ", ha=side, **_BOLD, **style)
        left: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "center", "fontsize": 10}
        light = "laser" if len(channel.excitation.lines) == 1 else "mean"
        lanes.annotate(f"{light} {line:.4g}", (line, middle), (-7, 0), color=ink(line), bbox=_WHITE, **left)
        lanes.plot([line, line], [n + 0.12, len(channels)], color=ink(line), lw=2.5, solid_capstyle="butt")
        for edge in (low, high):
            lanes.plot([edge, edge], [n + 0.88, len(channels)], color=color, lw=0.7, ls=(0, (2, 3)))
        for axes in others:
            axes.axvspan(low, high, color=color, alpha=0.1, lw=0, zorder=0)
            axes.axvline(line, color=ink(line), lw=2.5, zorder=1)
            for edge in (low, high):
                axes.axvline(edge, color=color, lw=0.7, ls=(0, (2, 3)), zorder=1)


def _draw_dye(axes: Axes, dye: Fluorophore, wanted: Sequence[DyeInChannel], *, filled: bool) -> None:
    color = ink(dye.peak_emission_nm)
    (ex, ex_value), (em, em_value) = (np.transpose(points) for points in (dye.excitation, dye.emission))
    axes.plot(ex, ex_value, color=color, lw=1.5, ls=(0, (5, 2)), zorder=3)
    axes.plot(em, em_value, color=color, lw=2.2, zorder=4)
    axes.fill_between(em, em_value, color=color, alpha=0.3 if filled else 0.07, lw=0, zorder=2)
    for pair in wanted:
        line, filters = pair.channel.excitation_nm, pair.channel.detection
        nm, passed = _passed_part(dye, filters)
        axes.fill_between(nm, passed, color=color, alpha=0.5, lw=0, zorder=2)
        place = mean_detected_nm(dye, filters) if pair.passed else dye.peak_emission_nm
        text = f"passes {percent(pair.passed)}"
        if bands.looks_dim(dye, filters):
            text = f"misses the peak\n{text}"
        frame = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": color, "lw": 1}
        style: dict[str, Any] = {**_BOLD, "color": color, "bbox": frame, "zorder": 7}
        axes.text(place, Spectrum.of(dye.emission).at(place) / 2, text, ha="center", **style)
        if pair.excited is not None and dye.excitation_at(line) > 0:
            height = min(dye.excitation_at(line), 1.0)
            axes.plot([line], [height], "o", ms=8, color=color, mec="white", mew=1.5, zorder=6, clip_on=False)
            text = f"excites {percent(pair.excited)}"
            axes.annotate(text, (line, height), (-9, 0), textcoords="offset points", ha="right", **style)


def _passed_part(dye: Fluorophore, filters: Transmission) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wavelengths, and what filters pass of a dye's emission."""
    part = filters.inside(Spectrum.of(dye.emission))
    nm = np.unique(np.concatenate([part.wavelength_nm, *(filters.inside(c).wavelength_nm for c in filters.curves)]))
    return nm, np.prod([f(nm) for f in (part, *filters.curves)], axis=0)


def _draw_name(names: Axes, axes: Axes, dye: Fluorophore, lane: int, lanes: int) -> None:
    """Write the name above the emission's peak, with a line down to it."""
    peak, color = dye.peak_emission_nm, ink(dye.peak_emission_nm)
    names.set_ylim(0, lanes)
    names.axis("off")
    names.plot([peak] * 2, [0, lane + 0.2], color=color, lw=0.8)
    axes.plot([peak] * 2, [1.0, TOP], color=color, lw=0.8)
    names.text(peak, lane + 0.5, dye.name, ha="center", color=color, bbox=_WHITE, **{**_BOLD, "fontsize": 11})


def _head(figure: Figure, title: str) -> None:
    """Draw title and legend."""
    from matplotlib.lines import Line2D

    height = figure.get_figheight()
    figure.text(_LEFT, 1 - 0.3 / height, title, fontsize=14, fontweight="bold", va="center", color="0.15")
    excitation = Line2D([], [], color="0.35", lw=1.5, ls=(0, (5, 2)), label="excitation")
    emission = Line2D([], [], color="0.35", lw=2.2, label="emission")
    place: dict[str, Any] = {"loc": "upper right", "bbox_to_anchor": (_RIGHT, 1 - 0.1 / height)}
    figure.legend(handles=[excitation, emission], ncols=2, frameon=False, fontsize=10, labelcolor="0.25", **place)


def _finish(axes: Axes, strip: Axes, limits: tuple[float, float]) -> None:
    """Draw the scales, and a strip with the colour of each wavelength."""
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    axes.set_ylim(0, TOP)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_locator(MultipleLocator(0.25))
    axes.set_ylabel("share of the peak", fontsize=11, color="0.25")
    axes.tick_params(bottom=False, labelbottom=False, left=False, colors="0.35")
    axes.grid(axis="y", color="0.9", lw=0.8)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.axhline(0, color="0.4", lw=1, zorder=5)
    nm = np.linspace(*limits, 600)
    visible = np.clip(np.minimum((nm - 360) / 40, (780 - nm) / 60), 0, 1)[:, None]
    colors = np.array([ink(w) for w in nm]) * visible + 0.85 * (1 - visible)
    strip.imshow(colors[None], extent=(*limits, 0, 1), aspect="auto", interpolation="bilinear")
    strip.set_yticks([])
    strip.set_xlim(*limits)
    strip.xaxis.set_major_locator(MultipleLocator(50))
    strip.xaxis.set_minor_locator(MultipleLocator(10))
    strip.tick_params(colors="0.35", labelsize=10)
    strip.set_xlabel("wavelength, nm", fontsize=11, color="0.25")
    for spine in strip.spines.values():
        spine.set_visible(False)
