"""Draw the error of length that uneven expansion makes, beside what was published."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simexm.planning.plan import Plan
from simexm.stages.expansion.distortion import PUBLISHED, expected, lengths_of
from simexm.stages.expansion.expansion import Expansion
from simexm.stages.expansion.field import Scale
from simexm.view.report.ink import ACCENT, MUTED, key, new_figure, svg

_NAMES = {"liconn": "LICONN"}


def distortion(plan: Plan) -> str | None:
    """Draw the curve of the plan's expansion; None if it displaces nothing."""
    scales = next((s.scales for s in plan.stages if isinstance(s, Expansion)), ())
    extent = [float(v) for v in plan.context.specimen.extent_nm]
    return draw_distortion(scales, extent) if scales else None


def draw_distortion(scales: Sequence[Scale], extent_nm: Sequence[float]) -> str:
    """Draw error of length, nm, against length, um, of a specimen of this extent."""
    shown = lengths_of(extent_nm, scales)
    curve = expected(scales, extent_nm, np.geomspace(shown[0], max(shown[-1], 1.5 * shown[0]), 16).tolist())
    figure, axes = new_figure(height=2.1)
    axes.plot(curve.length_um, curve.mean_nm, color=ACCENT, lw=1.5, label="simulated")
    for name, points in PUBLISHED.items():
        length, error = zip(*points, strict=True)
        axes.plot(length, error, color=MUTED, lw=0, marker="o", ms=3.5, label=_NAMES.get(name, name))
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("length, µm of tissue")
    axes.set_ylabel("error, nm")
    axes.tick_params(which="minor", bottom=False, labelbottom=False)
    key(axes, loc="upper left")
    return svg(figure, "Error of length by uneven expansion, and what was published, by length")
