"""Figures as SVG inside a page: text uses the page's font, and greys follow its light or dark scheme."""

from __future__ import annotations

import base64
import io
import math
import re
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER, ACCENT = "#010203", "#010204", "#010205", "#010206", "#010207"
"""Placeholders for the page's colours while a figure is drawn; figures use no such black otherwise."""
_NAMES = {INK: "ink", MUTED: "muted", GRID: "rule", PAPER: "paper", ACCENT: "accent"}
_POINTS = 8
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def new_figure(width: float = 3.7, height: float = 2.35) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes, in inches; 3.7 inches are the width of a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(which="both", colors=MUTED, labelsize=_POINTS, left=False, length=2.5, width=0.6)
    axes.grid(axis="y", color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(MUTED)
        label.set_fontsize(_POINTS)
    return figure, axes


def key(axes: Axes, **changes: Any) -> None:
    """Add a legend in the page's colours."""
    axes.legend(fontsize=_POINTS, frameon=False, labelcolor=INK, handlelength=1.4, **changes)


def in_powers(axis: Axis) -> None:
    """Label a logarithmic axis in plain text: 1, 10, 100, 10³; mathematical text would need its own font."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    def written(value: float, _: object) -> str:
        power = round(math.log10(value))
        return f"{10**power}" if 0 <= power <= 2 else "10" + str(power).translate(_SUPERSCRIPT)

    axis.set_major_locator(LogLocator(base=10, numticks=6))
    axis.set_major_formatter(FuncFormatter(written))
    axis.set_minor_formatter(NullFormatter())


def svg(figure: Figure, description: str) -> str:
    """Convert a figure to an SVG element; the description is for readers who cannot see it."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    title = description.replace("&", "&amp;").replace("<", "&lt;")
    start = rf'<svg role="img" viewBox="\1"><title>{title}</title>'
    text = re.sub(r"<svg [^>]*?viewBox=\"([^\"]*)\"[^>]*>", start, text, count=1)
    for color, name in _NAMES.items():
        text = text.replace(color, f"var(--{name})")
    text = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?)px [^;\"]*", r"font: \1\2px var(--sans)", text)
    unique = f"{zlib.crc32(description.encode()):08x}"  # the same id in two figures would be one element
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>f{unique}", text)
    return text.strip()


def png(image: NDArray[np.float64]) -> str:
    """Convert an RGB or RGBA image, 0 to 1, to a data URI."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(out, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
