"""Dyes, lasers and filters, and the microscope's point spread function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simexm.kernels.diffraction import response
from simexm.spec.simulation import Spec
from simexm.stages import Confocal, LightSheet, TwoPhoton
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_plan import Channel, OpticsPair
from simexm.view.dyes import CROSSTALK_SHARE, DyeInChannel, LightPath, dyes_in_channels, light_path_of
from simexm.view.report.ink import GRID, INK, MUTED, new_figure, svg
from simexm.view.spectra import ink


def light_path(simulation: Spec) -> LightPath:
    """Return dyes, lasers and filters of a spec."""
    return light_path_of(simulation.stages, {d.name: d for d in simulation.fluorophores().values()})


def draw_channel(name: str, seen: Sequence[DyeInChannel]) -> str:
    """Draw a channel's laser and filter over the spectra of the dyes that it sees."""
    pair = seen[0]
    line, (low, high) = pair.channel.excitation_nm, pair.channel.passes_nm
    figure, axes = new_figure()
    axes.axvspan(low, high, color=ink((low + high) / 2), alpha=0.16, lw=0)
    axes.axvline(line, color=ink(line), lw=1.8)
    for each in seen:
        color = ink(each.dye.peak_emission_nm)
        (ex, ex_value), (em, em_value) = (np.transpose(p) for p in (each.dye.excitation, each.dye.emission))
        axes.plot(ex, ex_value, color=color, lw=1.0, ls=(0, (4, 2)))
        axes.plot(em, em_value, color=color, lw=1.6)
    shown = [min(line, low) - 70, max(line, high) + 70]
    for each in seen:
        if each.wanted:
            shown += [each.dye.peak_excitation_nm - 50, each.dye.peak_emission_nm + 60]
    axes.set_xlim(max(300, min(shown)) if line < 760 else min(shown), max(shown))
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.set_xlabel("wavelength, nm")
    side, offset = ("right", -4) if line <= (low + high) / 2 else ("left", 4)
    style: dict[str, Any] = {"va": "center", "fontsize": 8, "color": INK}
    light = "laser" if len(pair.channel.excitation.lines) == 1 else "light, mean"
    axes.annotate(f"{light} {line:.4g}", (line, 1.05), (offset, 0), textcoords="offset points", ha=side, **style)
    axes.text((low + high) / 2, 1.05, f"{low:.4g}–{high:.4g}", ha="center", **style)
    dyes = ", ".join(each.dye.name for each in seen)
    return svg(
        figure, f"Channel {name}: spectra of {dyes}, {light} at {line:.4g} nm, filter {low:.4g} to {high:.4g} nm"
    )


def draw_spectra(found: LightPath) -> list[tuple[str, list[str], str]]:
    """Return for each channel its name, the dyes that it sees, and a figure."""
    drawn = []
    seen = dyes_in_channels(found.dyes.values(), found)
    for channel in found.channels:
        row = [s for s in seen if s.channel.name == channel.name]
        visible = [s for s in row if s.wanted or (s.signal or 0) >= CROSSTALK_SHARE] or row
        drawn.append((channel.name, [s.dye.name for s in visible], draw_channel(channel.name, visible)))
    return drawn


@dataclass(frozen=True)
class Spread:
    """Point spread function of one dye in one channel; full widths at half maximum are in nm of expanded tissue."""

    channel: str
    dye: str
    lateral_nm: float
    axial_nm: float | None  # None if it never falls to half
    textbook_lateral: str
    textbook_axial: str
    figure: str  # section through the axis


def spreads(optics: Optics, pairs: Sequence[OpticsPair], simulation: Spec) -> list[Spread]:
    """Return the point spread function of each channel for the dye that it sees best."""
    dyes = {d.name: d for d in simulation.fluorophores().values()}
    found = []
    for channel in optics.all_channels:
        best = max((p for p in pairs if p.channel == channel.name), key=lambda p: p.in_focus, default=None)
        if best is None:
            continue
        lateral, axial = best.fwhm_nm[1], best.fwhm_nm[0]
        r = np.arange(max(32, math.ceil(2.5 * lateral / 10)), dtype=np.float64) * 10.0
        deepest = 1.6 * (axial or 4 * lateral)
        z = np.arange(97, dtype=np.float64) * (deepest / 96)
        table = response.Response(z, r, optics.response(channel, dyes[best.dye], best.emission_nm, z, r))
        lateral = response.fwhm_lateral_nm(table)
        try:
            axial = response.fwhm_axial_nm(table)
        except ValueError:
            axial = None
        expected, deep = textbook(optics, channel, best.emission_nm)
        figure = _draw(channel.name, best.dye, table)
        found.append(Spread(channel.name, best.dye, lateral, axial, _range(expected), _range(deep), figure))
    return found


def textbook(optics: Optics, channel: Channel, emission_nm: float) -> tuple[list[float], list[float]]:
    """Return lateral and axial full width at half maximum by formula, nm; two values each if the formulas give a range.

    Widefield and confocal: Wilhelm, Groebler, Gluch & Heinz, "Confocal Laser Scanning Microscopy", Carl Zeiss (above 1 Airy
    unit excitation alone counts, below 0.25 both beams). Two photons: Zipfel, Williams & Webb, Nat. Biotechnol. 21, 1369
    (2003). A light sheet of 1 / e^2 half thickness w has the width w sqrt(2 ln 2), combined with that of the objective by
    1 / sqrt(a^-2 + b^-2).
    """
    na, n, line = optics.numerical_aperture, optics.refractive_index, channel.excitation_nm
    depth = n - math.sqrt(n * n - na * na)
    if isinstance(optics, Confocal):
        both = math.sqrt(2) * emission_nm * line / math.hypot(emission_nm, line)
        closed, opened = (0.37 * both / na, 0.64 * both / depth), (0.51 * line / na, 0.88 * line / depth)
        units = optics.pinhole_airy_units
        chosen = [closed] * (units < 1) + [opened] * (units > 0.25)
        return [c[0] for c in chosen], [c[1] for c in chosen]
    if isinstance(optics, TwoPhoton):
        waist = (0.325 * line / na**0.91 if na > 0.7 else 0.320 * line / na) / math.sqrt(2)
        axial = 0.532 * line / math.sqrt(2) / depth
        return [2 * math.sqrt(math.log(2)) * waist], [2 * math.sqrt(math.log(2)) * axial]
    lateral, axial = 0.51 * emission_nm / na, 0.88 * emission_nm / depth
    if isinstance(optics, LightSheet) and optics.sheet_profile is None:
        sheet = optics.waist_nm(channel) * math.sqrt(2 * math.log(2))
        axial = 1 / math.hypot(1 / axial, 1 / sheet)
    return [lateral], [axial]


def _range(values: Sequence[float]) -> str:
    return " to ".join(f"{v:.0f}" for v in values)


def _draw(channel: str, dye: str, table: response.Response) -> str:
    figure, axes = new_figure(3.7, 2.9)
    half = np.concatenate([table.table[:, :0:-1], table.table], axis=1)
    section = np.concatenate([half[:0:-1], half]) / table.table[0, 0]
    r, z = table.r_nm[-1] / 1000, table.z_nm[-1] / 1000
    style: dict[str, Any] = {"cmap": "magma", "vmin": 0, "vmax": 1, "interpolation": "bilinear", "aspect": "equal"}
    axes.imshow(np.sqrt(section), extent=(-r, r, z, -z), **style)
    columns, rows = (np.linspace(-end, end, size) for end, size in zip((r, z), section.shape[::-1], strict=True))
    axes.contour(columns, rows, section, levels=[0.5], colors="white", linewidths=0.9)
    axes.grid(visible=False)
    axes.set_xlabel("x, µm expanded")
    axes.set_ylabel("z, µm expanded")
    axes.tick_params(left=True)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.axhline(0, color=GRID, lw=0)
    axes.tick_params(colors=MUTED)
    about = f"Section through the point spread function of {dye} in channel {channel}; the line is half of the maximum"
    return svg(figure, about)
