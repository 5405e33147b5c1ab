"""A short animation of a movie for notebooks: an image that plays by itself, without script."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from simexm.view.picture import level_for_screen
from simexm.view.window import Planes

if TYPE_CHECKING:
    from simexm.result.result import Result

SIDE = 320
"""Most pixels a side of the level that is played; coarser levels are played where they are small enough."""
FRAMES = 100
"""Most frames; a longer movie is shown from its start."""
WIDTH = 400


def clip(result: Result) -> tuple[int, bytes] | None:
    """Return the width on the page and the GIF of a movie of one plane, at its own speed; None if it is none."""
    planes = Planes(result, level_for_screen(result, SIDE), [])
    if not planes.moves:
        return None
    from PIL import Image

    step = max(1, round(0.02 / planes.frame_s))  # browsers play no faster than 50 frames a second
    shown = range(0, min(planes.shape[0], FRAMES * step), step)
    frames = [Image.fromarray(np.rint(planes.rgb(n, 0) * 255).astype(np.uint8)) for n in shown]
    scale = max(1, WIDTH // max(frames[0].size))
    frames = [f.resize((f.width * scale, f.height * scale), Image.Resampling.NEAREST).quantize(256) for f in frames]
    out = io.BytesIO()
    duration = max(20, round(100 * planes.frame_s * step) * 10)
    frames[0].save(out, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return frames[0].width, out.getvalue()
