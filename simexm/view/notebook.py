"""Show simulations, plans, previews and results as HTML in notebooks: a picture and a table, without script or network.

Colours are the notebook's own, or readable on both light and dark.
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
from simexm.sources.tissue import TissueSource
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
<div style="margin: 0 0 4px"><b>{{ title }}</b>{% if about %} &ensp;{{ about }}{% endif %}</div>
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
<title>{{ caption }}</title>
<rect x="{{ own[0] }}" y="{{ own[1] }}" width="{{ own[2] }}" height="{{ own[3] }}" fill="#3b82d0" fill-opacity=".45" \
stroke="none"/>
{% for x in columns %}<path d="M{{ x }} 0V{{ height }}" stroke-width=".6" stroke-opacity=".6"/>
{% endfor %}{% for y in rows %}<path d="M0 {{ y }}H{{ width }}" stroke-width=".6" stroke-opacity=".6"/>
{% endfor %}<rect x="0" y="0" width="{{ width }}" height="{{ height }}" stroke-width="1.2"/></svg>
<div style="color: #808080; font-size: 12px">{{ caption }}</div>"""


def simulation_html(simulation: Spec) -> str:
    """Show dyes, lasers and filters, and the settings of each stage."""
    from simexm.view.report.light import draw_spectra, light_path

    drawn = [(300, f"{_caption(name)}{figure}") for name, _, figure in draw_spectra(light_path(simulation))]
    return _page(simulation.name, "simulation", _simulation_rows(simulation), drawn)


def plan_html(plan: Plan) -> str:
    """Show the image divided into blocks, and the lines of `simexm plan`."""
    rows = plan_rows(plan) + [("note", remark) for remark in plan.imaging.description.remarks()]
    return _page(plan.simulation.name, "plan", rows, [(_DRAWN_SIDE, _blocks(plan))])


def preview_html(picture: Image.Image, position: str) -> str:
    """Show the picture and its position."""
    return _page("preview", position, [], [(picture.width, _img(picture, position))])


def result_html(result: Result) -> str | None:
    """Show the middle of the image, or play a movie, and the lines of `simexm info`; None if a file of the result is missing."""
    from simexm.view.clip import clip
    from simexm.view.picture import draw, picture_of

    if not result.complete:
        return _page(result.path.name, "incomplete: the same run again continues it", [], [])
    which = ", ".join(f"{a} {n} of {result.acquisition.length(a)}" for a, n in result.frame.named)
    try:
        rows = result_rows(result)
        if played := clip(result):
            width, data = played
            return _page(
                result.path.name, "", rows, [(width, _img_of(data, "gif", f"The movie in {result.path.name}"))]
            )
        picture = draw(picture_of(result))
    except (SimexmError, OSError):
        return None
    return _page(result.path.name, which, rows, [(picture.width, _img(picture, f"The image in {result.path.name}"))])


def _page(title: str, about: str, rows: Rows, pictures: Sequence[tuple[int, str]]) -> str:
    return _template(_PAGE).render(title=title, about=about, rows=rows, pictures=pictures)


@cache
def _template(text: str) -> Template:
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined).from_string(text)


def _caption(text: str) -> str:
    return _template('<div style="color: #808080; font-size: 12px">{{ text }}</div>').render(text=text)


def _img(picture: Image.Image, alt: str) -> str:
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return _img_of(out.getvalue(), "png", alt)


def _img_of(data: bytes, kind: str, alt: str) -> str:
    href = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return _template('<img alt="{{ alt }}" style="display: block; width: 100%" src="{{ href }}">').render(
        alt=alt, href=href
    )


def _blocks(plan: Plan) -> str:
    """Draw the borders of blocks in the plane, and the tile in the middle."""
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
    caption = f"{times(plan.blocks.counts)} blocks (z y x) over {height} x {width} pixels; one tile in colour"
    size = {"width": round(width * scale, 1), "height": round(height * scale, 1)}
    return _template(_BLOCKS).render(columns=columns, rows=rows, own=own, caption=caption, **size)


def _simulation_rows(simulation: Spec) -> Rows:
    """List the source, then each stage with the settings that are not defaults, or else with all."""
    source, crop = simulation.source, simulation.crop
    if isinstance(source, TissueSource):
        place = f"tissue of {times(source.size_um)} um with {', '.join(p.name for p in source.populations)}"
    else:
        place = f"phantom of {times(source.shape)} voxels" if isinstance(source, Phantom) else source.path
    rows = [("source", place)]
    if crop is not None:
        rows.append(("crop", f"{times(crop.shape)} voxels from {' '.join(map(str, crop.offset))}"))
    for stage in simulation.stages:
        found = stage.model_dump(mode="json", exclude_defaults=True)
        if not found:
            found = {k: v for k, v in stage.model_dump(mode="json", exclude={"stage"}).items() if v not in (None, [])}
        rows.append((stage.model_dump()["stage"], _text(found) or "as usual"))
    rows += [("keep", ", ".join(simulation.keep))] if simulation.keep else []
    return [*rows, ("seed", str(simulation.seed))]


def _text(value: Any) -> str:
    """Write plain data as names and values, nested ones in brackets."""
    if isinstance(value, dict):
        return ", ".join(f"{k} ({_text(v)})" if _has_mappings(v) else f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ("; " if _has_mappings(value) else " ").join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _has_mappings(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list | tuple) and any(isinstance(v, dict) for v in value))
