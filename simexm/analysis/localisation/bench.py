"""A movie with its camera and the image of an emitter: measured by blocks of frames, then corrected and linked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.analysis.contract import Bench, Conclusion, Score
from simexm.analysis.localisation import drift as drifting
from simexm.analysis.localisation.camera import Noise
from simexm.analysis.localisation.frames import Movie
from simexm.analysis.localisation.linking import Linker, event_columns
from simexm.analysis.localisation.optics import (
    Seen,
    gaussian_model,
    response_of_lens,
    table_model,
    width_nm,
    z_planes,
)
from simexm.errors import OutputError
from simexm.jobs.keyed_rows import Keyed, MergedRows
from simexm.kernels.localisation import models
from simexm.kernels.localisation.detect import find
from simexm.kernels.localisation.fit import Fitted, Model, fit
from simexm.kernels.localisation.response import Response, tabulate

if TYPE_CHECKING:
    from simexm.analysis.localisation.localise import Localise

LOCALISATIONS, EVENTS = "localisations", "events"
_FLOATS = (
    "z_nm", "y_nm", "x_nm", "photons", "background", "z_precision_nm", "y_precision_nm", "x_precision_nm", "sigma_nm",
    "photons_precision", "log_likelihood",
)  # fmt: skip
_KEYED = Keyed(("time", "number"), dict.fromkeys(_FLOATS, "max"))
_SINGLE = ("photons", "background", "sigma_nm", "photons_precision", "log_likelihood")
"""Columns that are stored with 32 bits."""
_BYTES_PER_PIXEL = 44
_SECONDS_PER_PIXEL = 2.5e-7
_LEAST_SIGNIFICANCE = 3.0
"""Photons over their standard deviation, below which an estimate is noise."""
_WIDTH_PX = 1.3
"""Standard deviation of a spot that is looked for where nothing is known of the optics."""


class LocaliseBench(Bench):
    """A movie with the camera and the image of an emitter."""

    def __init__(self, settings: Localise, movie: Movie) -> None:
        self.settings, self.movie = settings, movie
        pixel = settings.pixel_size_nm or movie.pixel_nm
        if pixel is None:
            raise OutputError(
                f"{movie.path} does not say how large its pixels are, so every distance would be a guess; set pixel_size_nm"
            )
        self.pixel_nm: float = pixel
        self.noise = Noise.of(movie, settings.camera)
        self._optics()
        frames, height, width = movie.shape
        if min(height, width) < self.side:
            raise OutputError(
                f"{movie.path} has frames of {height} x {width} pixels, and squares of {self.side} are fitted; set side_pixels "
                "or sigma_nm lower"
            )
        self.keyed = {LOCALISATIONS: _KEYED}
        self.inputs = {"movie": movie.identity}
        if settings.drift_table is not None:
            known = drifting.given(settings.drift_table, frames)
            self.inputs["drift"] = _digest(known)
        self.blocks = -(-frames // settings.block_frames)
        self.voxels = math.prod(movie.shape)
        self.core_seconds = _SECONDS_PER_PIXEL * self.voxels
        self.block_bytes = _BYTES_PER_PIXEL * min(settings.block_frames, frames) * height * width + (64 << 20)
        self.remedy = f"set block_frames below {settings.block_frames}"

    def _optics(self) -> None:
        """Scale of expansion, width of a spot, and side of the square that is fitted."""
        s = self.settings
        self.seen = Seen(self.movie) if self.movie.result is not None and s.model == "psf" else None
        if self.seen is not None and s.lens is not None:
            raise OutputError(f"{self.movie.path} knows its own microscope; leave the setting lens out")
        if s.model == "psf" and self.seen is None and s.lens is None:
            raise OutputError(
                f"{self.movie.path} does not say how a point looks; set lens: {{numerical_aperture: ..., emission_nm: ...}}, "
                "or model: gaussian"
            )
        self.scale = 1.0 if self.movie.result is None else float(self.movie.plan.geometry.transform.scale)
        sigma = None if s.sigma_nm is None else s.sigma_nm / self.pixel_nm
        if sigma is None and self.seen is not None:
            aperture, light = self.seen.optics.numerical_aperture, self.seen.pair.emission_nm
            sigma = width_nm(aperture, light) / (self.pixel_nm * self.scale)
        if sigma is None and s.lens is not None:
            sigma = width_nm(s.lens.numerical_aperture, s.lens.emission_nm) / self.pixel_nm
        self.sigma_px = max(0.7, sigma or _WIDTH_PX)
        is_round = self.seen.is_round if self.seen else s.lens is None or s.lens.objective.round
        self.deep = s.model == "psf" and (not is_round if s.fit_z is None else s.fit_z)
        reach = (4 if s.model == "psf" else 3) + self.deep
        self.side = s.side_pixels or 2 * math.ceil(reach * self.sigma_px) + 1

    @cached_property
    def model(self) -> Model:
        """The image of an emitter."""
        if self.settings.model == "gaussian":
            return gaussian_model(self.sigma_px, self.side, free=True)
        return table_model(self.response, self.side)

    @cached_property
    def response(self) -> Response:
        """Table of the response, in expanded nm."""
        z = self.settings.z_range_nm if self.deep else None
        if self.seen is not None:
            return tabulate(self.seen.images(), self.pixel_nm * self.scale, self.side, z_planes(z))
        assert self.settings.lens is not None
        return response_of_lens(self.settings.lens, self.pixel_nm, self.side, z)

    def measure(self, number: int) -> Mapping[str, Any]:
        """Fit the spots of a range of frames."""
        first = number * self.settings.block_frames
        counts = self.movie.read(first, min(first + self.settings.block_frames, self.movie.shape[0]))
        electrons = self.noise.electrons(counts)
        read, excess = self.noise.read_variance, self.noise.excess
        spots = find(electrons, read, excess, self.sigma_px, self.settings.threshold)
        half, most = self.side // 2, np.array(electrons.shape[1:]) - self.side
        corners = spots.copy()
        corners[:, 1:] = np.clip(spots[:, 1:] - half, 0, most)
        start = np.zeros((len(spots), models.PARAMETERS))
        start[:, :2] = spots[:, 1:] - corners[:, 1:] + 0.5
        found = fit(electrons, read, excess, corners, start, self.model)
        return {LOCALISATIONS: self._columns(first, corners, found)}

    def _columns(self, first: int, corners: NDArray[np.int64], found: Fitted) -> dict[str, NDArray[Any]]:
        photons, sd = found.theta[:, models.PHOTONS], np.sqrt(found.variance)
        kept = found.settled & (photons >= _LEAST_SIGNIFICANCE * sd[:, models.PHOTONS])
        place = corners[:, 1:] + found.theta[:, :2]
        kept &= np.all((place >= 0) & (place <= np.array(self.movie.shape[1:])), axis=1)
        kept[kept] = _first_of_each(corners[kept, 0], place[kept], photons[kept], self.sigma_px)
        theta, sd, place, corners = found.theta[kept], sd[kept], place[kept], corners[kept]
        unknown = np.full(len(theta), np.nan)
        last, last_sd = theta[:, models.LAST], sd[:, models.LAST]
        deep, width = self.deep, self.settings.model == "gaussian"
        per_plane = self.response.plane_nm / self.scale if deep else 0.0
        z = self.movie.plane_nm + self.response.first_nm / self.scale + last * per_plane if deep else unknown
        time = (first + corners[:, 0]).astype(np.uint64)
        values = {
            "z_nm": z,
            "y_nm": place[:, 0] * self.pixel_nm,
            "x_nm": place[:, 1] * self.pixel_nm,
            "photons": theta[:, models.PHOTONS],
            "background": theta[:, models.BACKGROUND],
            "z_precision_nm": last_sd * per_plane if deep else unknown,
            "y_precision_nm": sd[:, models.Y] * self.pixel_nm,
            "x_precision_nm": sd[:, models.X] * self.pixel_nm,
            "sigma_nm": last * self.pixel_nm if width else unknown,
            "photons_precision": sd[:, models.PHOTONS],
            "log_likelihood": found.log_likelihood[kept],
        }
        return {
            "time": time,
            "number": _numbers(time),
            **{name: np.ascontiguousarray(column, np.float64).view(np.int64) for name, column in values.items()},
        }

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Correct drift, link, and add up."""
        rows: MergedRows = sums[LOCALISATIONS]
        drift = self._drift(rows)
        tables: dict[str, Any] = {LOCALISATIONS: self._table(rows, drift)}
        if drift is not None:
            tables[drifting.TABLE] = drifting.table(drift)
        if self.settings.link_nm is not None:
            tables[EVENTS] = self._events(rows, drift)
        frames, height, width = self.movie.shape
        about = {
            "pixel_nm": self.pixel_nm,
            "frames": frames,
            "rows": height,
            "columns": width,
            "sigma_nm": self.sigma_px * self.pixel_nm,
        }
        return Conclusion(tables, tuple(self._scores(rows, drift)), {LOCALISATIONS: {"movie": about}})

    def _pieces(self, rows: MergedRows, drift: NDArray[np.float64] | None) -> Iterator[dict[str, NDArray[Any]]]:
        """Localisations in the order of time, less the drift."""
        for piece in rows:
            found: dict[str, NDArray[Any]] = {"time": piece["time"].astype(np.int64)}
            found |= {name: np.ascontiguousarray(piece[name]).view(np.float64) for name in _FLOATS}
            if drift is not None:
                for n, axis in enumerate("zyx"):
                    found[f"{axis}_nm"] = found[f"{axis}_nm"] - drift[found["time"], n]
            yield found

    def _drift(self, rows: MergedRows) -> NDArray[np.float64] | None:
        s, frames = self.settings, self.movie.shape[0]
        if s.drift_table is not None:
            return drifting.given(s.drift_table, frames)
        if s.drift is None:
            return None
        return drifting.correlated(self._pieces(rows, None), s.drift, self.movie.shape, self.pixel_nm)

    def _linked(
        self, rows: MergedRows, drift: NDArray[np.float64] | None
    ) -> Iterator[tuple[dict[str, NDArray[Any]], NDArray[np.int64], NDArray[np.float64]]]:
        """Pieces, the event of each localisation, and the events that are over."""
        s, before = self.settings, 0
        linker = None if s.link_nm is None else Linker(s.link_nm, s.link_gap_frames)
        for piece in self._pieces(rows, drift):
            if linker is None:
                events = before + np.arange(len(piece["time"]))
                before += len(events)
                yield piece, events, np.zeros((0, 0))
                continue
            each = list(linker.add(piece))
            ids = np.concatenate([np.zeros(0, np.int64), *(one for one, _ in each)])
            yield piece, ids, np.concatenate([linker.end()[:0], *(over for _, over in each)])
        if linker is not None:
            yield {}, np.zeros(0, np.int64), linker.end()

    def _table(self, rows: MergedRows, drift: NDArray[np.float64] | None) -> Iterator[pa.Table]:
        for piece, events, _ in self._linked(rows, drift):
            if piece:
                values = {n: piece[n].astype(np.float32) if n in _SINGLE else piece[n] for n in _FLOATS}
                yield pa.table({"time": piece["time"], "event": events.astype(np.int64), **values})

    def _events(self, rows: MergedRows, drift: NDArray[np.float64] | None) -> Iterator[pa.Table]:
        for _, _, over in self._linked(rows, drift):
            yield pa.table(event_columns(over))

    def _scores(self, rows: MergedRows, drift: NDArray[np.float64] | None) -> Iterator[Score]:
        total: dict[str, float] = dict.fromkeys(("count", "photons", "background", "precision"), 0.0)
        for piece in self._pieces(rows, drift):
            total["count"] += len(piece["time"])
            total["photons"] += float(piece["photons"].sum())
            total["background"] += float(piece["background"].sum())
            total["precision"] += float(np.hypot(piece["y_precision_nm"], piece["x_precision_nm"]).sum() / math.sqrt(2))
        n = max(1.0, total["count"])
        yield Score("localisations", total["count"], "", "spots that were fitted, in all frames")
        yield Score("per_frame", total["count"] / self.movie.shape[0], "1/frame", "localisations by frames")
        yield Score("photons", total["photons"] / n, "e", "mean photo-electrons of a localisation")
        yield Score("background", total["background"] / n, "e/pixel", "mean background of a localisation")
        yield Score(
            "precision",
            total["precision"] / n,
            "nm",
            "mean lateral standard deviation that Fisher's information allows",
        )
        if drift is not None:
            yield Score("drift", float(np.ptp(drift, axis=0).max()), "nm", "largest range of the drift along an axis")


def _numbers(time: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Number of each row in its frame."""
    starts = np.concatenate([[True], np.diff(time) != 0]) if time.size else np.zeros(0, np.bool_)
    first = np.flatnonzero(starts)
    return (np.arange(time.size) - first[np.cumsum(starts) - 1]).astype(np.uint64) if time.size else time


def _first_of_each(
    frame: NDArray[np.int64], place: NDArray[np.float64], photons: NDArray[np.float64], least_px: float
) -> NDArray[np.bool_]:
    """Of several estimates at one place, of maxima that belong to one spot, keep that with most photons."""
    from scipy.spatial import cKDTree

    kept = np.ones(len(place), np.bool_)
    if len(place) < 2:
        return kept
    apart = np.column_stack([frame * 1e6, place])
    for a, b in cKDTree(apart).query_pairs(least_px, output_type="ndarray"):
        low, high = min(a, b), max(a, b)
        kept[high if photons[high] <= photons[low] else low] = False
    return kept


def _digest(values: NDArray[np.float64]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).hexdigest()
