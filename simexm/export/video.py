"""Write grey movies without loss as AVI files with the codec FFV1.

FFV1 (RFC 9043) is what the acquisition software of the UCLA Miniscope records, and every program that is built on FFmpeg
reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from simexm.errors import OutputError
from simexm.export.stack import Head, Plane
from simexm.store.atomic_file import atomic_file

DEFAULT_RATE = 20
"""Frames per second of a file whose frames have no times in seconds."""
_FORMATS = {np.dtype(np.uint8): "gray", np.dtype(np.uint16): "gray16le"}


def need_av() -> Any:
    """Import PyAV; raises OutputError if it is not installed."""
    try:
        return import_module("av")
    except ImportError as error:
        raise OutputError(
            'AVI files need PyAV, which is not installed, so nothing is written. Type: pip install "simexm[movies]"; or '
            "--format tiff, which needs nothing"
        ) from error


def refuse_dtype(head: Head) -> None:
    """Raise OutputError if the values do not fit a grey video."""
    if head.dtype not in _FORMATS:
        raise OutputError(
            f"{head.name} holds {head.dtype}, but a grey AVI holds 8 or 16 bits. Type --format tiff, or --8bit."
        )


@contextmanager
def write_avi(path: Path, head: Head) -> Iterator[Callable[[Plane], None]]:
    """Yield a function that adds the next frame to an AVI: FFV1, grey, of 8 or 16 bits, or in RGB."""
    with atomic_file(path) as partial, open_avi(partial, head) as add:
        yield add


@contextmanager
def open_avi(path: Path, head: Head) -> Iterator[Callable[[Plane], None]]:
    """Do the same without a partial name."""
    av = need_av()
    layout = "rgb24" if head.rgb else _FORMATS[head.dtype]
    rate = Fraction(DEFAULT_RATE) if head.frame_s is None else (1 / Fraction(head.frame_s)).limit_denominator(1000)
    with av.open(str(path), "w", format="avi", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=rate, options={"level": "3", "g": "1", "slicecrc": "1"})
        stream.width, stream.height = head.shape[2], head.shape[1]
        stream.pix_fmt = "bgr0" if head.rgb else layout
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        stream.thread_count = 1  # so that bytes do not depend on the machine

        def add(plane: Plane) -> None:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(plane), format=layout)
            container.mux(stream.encode(frame))

        yield add
        container.mux(stream.encode(None))
