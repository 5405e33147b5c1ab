"""Simulations, plans, previews and results as HTML for notebooks: a picture and a table, no script, nothing from the network.

Colours are the notebook's own, or show on light and dark alike.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from simexm.errors import SimexmError
from simexm.geometry.grid import Box
from simexm.planning.plan import Plan
from simexm.result.result import Result
from simexm.run.excerpt import tiles_of
from simexm.sources.phantom import Phantom
from simexm.units import times
from simexm.view.rows import Rows, plan_rows, result_rows

if TYPE_CHECKING:
    from jinja2 import Template
    from PIL import Image

    from simexm.spec.simulation import Spec

_DRAWN_SIDE = 240
_DRAWN_BLOCKS = 64

_PAGE = """\
<div style="max-width: 62em; color: inherit; font-size: 13px; line-height: 1.4;
 --ink: currentColor; --muted: #808080; --rule: rgba(128, 128, 128, .35); --paper: transparent; --accent: #3b82d0;
 --sans: sans-serif">
<div style="margin: 0 0 4px"><b>{{ title }}</b>{% if told %} &ensp;{{ told }}{% endif %}</div>
{% if pictures %}<div style="display: flex; flex-wrap: wrap; gap: 10px; margin: 0 0 6px">
{% for width, picture in pictures %}<div style="width: {{ width }}px; max-width: 100%">{{ picture | safe }}</div>
{% endfor %}</div>
{% endif %}{% if rows %}<table style="border-collapse: collapse; margin: 0; color: inherit; background: transparent;
 font-size: 13px">
{% for what, value in rows %}<tr style="background: transparent"><th scope="row" style="text-align: left;
 vertical-align: top; font-weight: 600; padding: 1px 16px 1px 0; white-space: nowrap; color: inherit">{{ what }}</th><td
 style="text-align: left; padding: 1px 0; white-space: normal; color: inherit">{{ value }}</td></tr>
{% endfor %}</table>
{% endif %}</div>"""

_BLOCKS = """\
<svg role="img" viewBox="-1 -1 {{ width + 2 }} {{ height + 2 }}" style="display: block" fill="none" stroke="currentColor">
<title>{{ told }}</title>
<rect x="{{ own[0] }}" y="{{ own[1] }}" width="{{ own[2] }}" height="{{ own[3] }}" fill="#3b82d0" fill-opacity=".45" \
stroke="none"/>
{% for x in columns %}<path d="M{{ x }} 0V{{ height }}" stroke-width=".6" stroke-opacity=".6"/>
{% endfor %}{% for y in rows %}<path d="M0 {{ y }}H{{ width }}" stroke-width=".6" stroke-opacity=".6"/>
{% endfor %}<rect x="0" y="0" width="{{ width }}" height="{{ height }}" stroke-width="1.2"/></svg>
<div style="color: #808080; font-size: 12px">{{ told }}</div>"""


def simulation_html(simulation: Spec) -> str:
    """Dyes, lasers and filters, and what each stage is told."""
    from simexm.view.report.light import bench, draw_spectra

    drawn = [(300, f"{_caption(name)}{figure}") for name, _, figure in draw_spectra(bench(simulation))]
    return _page(simulation.name, "simulation", _simulation_rows(simulation), drawn)


def plan_html(plan: Plan) -> str:
    """The image cut into blocks, and what `simexm plan` tells."""
    rows = plan_rows(plan) + [("note", remark) for remark in plan.imaging.description.remarks()]
    return _page(plan.simulation.name, "plan", rows, [(_DRAWN_SIDE, _blocks(plan))])


def preview_html(picture: Image.Image, told: str) -> str:
    """The picture, and where it is."""
    return _page("preview", told, [], [(picture.width, _img(picture, told))])


def result_html(result: Result) -> str | None:
    """The middle of the image, and what `simexm info` tells; None where a file of the result is gone."""
    from simexm.view.picture import draw, picture_of

    if not result.complete:
        return _page(result.path.name, "incomplete: the same run again goes on with it", [], [])
    try:
        picture, rows = draw(picture_of(result)), result_rows(result)
    except (SimexmError, OSError):
        return None
    which = ", ".join(f"{a} {n} of {result.acquisition.length(a)}" for a, n in result.frame.named)
    return _page(result.path.name, which, rows, [(picture.width, _img(picture, f"The image in {result.path.name}"))])


def _page(title: str, told: str, rows: Rows, pictures: Sequence[tuple[int, str]]) -> str:
    return _template(_PAGE).render(title=title, told=told, rows=rows, pictures=pictures)


@cache
def _template(text: str) -> Template:
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined).from_string(text)


def _caption(text: str) -> str:
    return _template('<div style="color: #808080; font-size: 12px">{{ text }}</div>').render(text=text)


def _img(picture: Image.Image, told: str) -> str:
    out = io.BytesIO()
    picture.save(out, format="PNG")
    href = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    return _template('<img alt="{{ told }}" style="display: block; width: 100%" src="{{ href }}">').render(
        told=told, href=href
    )


def _blocks(plan: Plan) -> str:
    """Where blocks end across the axis, and the tile in the middle."""
    _, height, width = plan.shape
    scale = _DRAWN_SIDE / max(height, width)
    few = max(plan.blocks.counts[1:]) <= _DRAWN_BLOCKS
    columns, rows = (
        [round(n * scale, 1) for n in range(plan.block[axis], plan.shape[axis], plan.block[axis])] if few else []
        for axis in (2, 1)
    )
    z, y, x = (n // 2 for n in plan.shape)
    tile = next(tiles_of(plan, Box.at((z, y, x), (1, 1, 1))))
    own = [round(v * scale, 1) for v in (tile.start[2], tile.start[1], tile.shape[2], tile.shape[1])]
    counts = times(plan.blocks.counts)
    return _template(_BLOCKS).render(
        width=round(width * scale, 1), height=round(height * scale, 1), columns=columns, rows=rows, own=own,
        told=f"{counts} blocks (z y x) over {height} x {width} pixels; one tile in colour",
    )  # fmt: skip


def _simulation_rows(simulation: Spec) -> Rows:
    """Where labels come from, then the stages with what is not at its default, or with all where everything is."""
    source, crop = simulation.source, simulation.crop
    place = f"phantom of {times(source.shape)} voxels" if isinstance(source, Phantom) else source.path
    rows = [("source", place)]
    if crop is not None:
        rows.append(("crop", f"{times(crop.shape)} voxels from {' '.join(map(str, crop.offset))}"))
    for stage in simulation.stages:
        tag, told = stage.model_dump()["stage"], stage.model_dump(mode="json", exclude_defaults=True)
        told = told or {
            k: v for k, v in stage.model_dump(mode="json", exclude={"stage"}).items() if v not in (None, [])
        }
        rows.append((tag, _told(told) or "as usual"))
    rows += [("keep", ", ".join(simulation.keep))] if simulation.keep else []
    return [*rows, ("seed", str(simulation.seed))]


def _told(value: Any) -> str:
    """Plain data in words: names and values, nested ones in brackets."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {_nested(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_told(v) for v in value) if any(isinstance(v, dict) for v in value) else _list(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _nested(value: Any) -> str:
    return f"({_told(value)})" if isinstance(value, dict) or _holds_mappings(value) else _told(value)


def _holds_mappings(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(v, dict) for v in value)


def _list(value: Sequence[Any]) -> str:
    return " ".join(_told(v) for v in value)
