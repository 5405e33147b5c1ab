"""Options of the export; imports nothing heavy, for the command line."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """Format of the files."""

    TIFF = "tiff"
    OME_TIFF = "ome-tiff"
    GIF = "gif"
    PNG = "png"
    SWC = "swc"
    PRECOMPUTED = "precomputed"


SKELETONS = (Format.SWC, Format.PRECOMPUTED)
"""Formats of skeletons."""


class Arrangement(StrEnum):
    """Whether channels (or cells) share a file."""

    MERGED = "merged"
    SPLIT = "split"
