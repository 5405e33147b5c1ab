"""Options of the export; imports nothing heavy, for the command line."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """Format of the files."""

    TIFF = "tiff"
    OME_TIFF = "ome-tiff"
    GIF = "gif"
    PNG = "png"
    AVI = "avi"
    MINISCOPE = "miniscope"
    CSV = "csv"
    GRAPHML = "graphml"
    NPZ = "npz"
    SWC = "swc"
    PRECOMPUTED = "precomputed"
    NRRD = "nrrd"
    OME_ZARR = "ome-zarr"
    TFM = "tfm"
    TXT = "txt"
    POINTS = "points"
    RNR_EXM = "rnr-exm"
    THUNDERSTORM = "thunderstorm"
    PICASSO = "picasso"
    SMLM_CHALLENGE = "smlm-challenge"
    SMAP = "smap"


MOVIES = (Format.AVI, Format.MINISCOPE)
"""Formats of movies alone."""
TRANSFORMS = (Format.NRRD, Format.OME_ZARR, Format.TFM, Format.TXT, Format.POINTS, Format.RNR_EXM)
"""Formats of the transform of an alignment."""
LOCALISATIONS = (Format.THUNDERSTORM, Format.PICASSO, Format.SMLM_CHALLENGE, Format.SMAP)
"""Formats of the table of localisations."""
SKELETONS = (Format.SWC, Format.PRECOMPUTED)
"""Formats of skeletons."""


class Arrangement(StrEnum):
    """Whether channels (or cells) share a file."""

    MERGED = "merged"
    SPLIT = "split"
