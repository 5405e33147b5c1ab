"""Draw the curves of a channel: light source, filters, dichroic and detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simexm.spectra.curves import Band, Curve
from simexm.stages.microscope.optics_plan import Channel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GREY = "0.25"
_STYLES: dict[str, dict[str, Any]] = {
    "excitation filter": {"color": "#1f5fa8", "lw": 1.6},
    "dichroic": {"color": "#8a5a00", "lw": 1.6, "ls": (0, (6, 2, 1, 2))},
    "emission filter": {"color": "#1a7f37", "lw": 1.6},
    "detector": {"color": "0.45", "lw": 1.6, "ls": (0, (1, 1.5))},
}
_LIGHT = "#6f9fd8"


def has_curves(channel: object) -> bool:
    """Whether a channel has more than one laser line and one band."""
    keys = ("source", "excitation_filter", "emission_filter", "dichroic")
    return isinstance(channel, Channel) and any(getattr(channel, key) is not None for key in keys)


def draw_curves(axes: Axes, channel: Channel, efficiency: Curve | None) -> None:
    """Draw what a channel's light passes: source over its peak, and the share that each filter and the detector passes."""
    limits = axes.get_xlim()
    _draw_source(axes, channel)
    filters = {
        "excitation filter": channel.excitation_filter,
        "dichroic": channel.dichroic,
        "emission filter": channel.band_nm or channel.emission_filter,
        "detector": efficiency,
    }
    for what, given in filters.items():
        if isinstance(given, tuple | Curve):
            nm, share = _outline(given, limits)
            label = f"{what} {given.name}" if isinstance(given, Curve) and given.name else what
            axes.plot(nm, share, label=label, **_STYLES[what])
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
    axes.set_ylabel(channel.name, fontsize=11, color=_GREY)
    axes.tick_params(bottom=False, labelbottom=False, left=False, colors="0.35")
    axes.grid(axis="y", color="0.9", lw=0.8)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.axhline(0, color="0.4", lw=1)
    axes.legend(loc="upper left", frameon=False, fontsize=9, labelcolor=_GREY, ncols=5, bbox_to_anchor=(0, 1.24))


def _draw_source(axes: Axes, channel: Channel) -> None:
    if isinstance(channel.source, Curve):
        nm, power = np.transpose(channel.source.points)
        label = f"source {channel.source.name}".strip()
        axes.fill_between(nm, power / power.max(), color=_LIGHT, alpha=0.35, lw=0, label=label)
    else:
        nm, power = np.transpose(channel.excitation.lines)
        axes.vlines(nm, 0, power / power.max(), color=_LIGHT, lw=3, label="laser")


def _outline(given: Band | Curve, limits: Band) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wavelengths and shares of a filter; a band with its edges."""
    if isinstance(given, Curve):
        nm, share = np.transpose(given.points)
        return nm, share
    low, high = given
    return np.array([limits[0], low, low, high, high, limits[1]]), np.array([0.0, 0, 1, 1, 0, 0])
