"""Score of cells found in a movie: footprints, traces, spikes and shifts against the planted ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.analysis.contract import Analysis, Bench, Conclusion, Measured, Score
from simexm.analysis.traces.truth import Found, Movie
from simexm.errors import OutputError
from simexm.kernels.movies import footprints as kernel
from simexm.kernels.movies import traces as series
from simexm.names import FreeText, Name

COPIES = 6


class TraceScore(Analysis):
    """Score what a program found in a movie (first input) against the truth of the movie (second).

    Found is what minian, Suite2p, CaImAn or another program wrote, also as NWB, `.npz` or `.npy`. Truth is the result of the
    simulation. Units are matched one to one. Recall counts the planted units that are detectable; precision counts every planted
    unit. It writes the tables `matches` and `units`.

    Attributes
    ----------
    energy_share
        Share of a footprint's energy, the sum of its squared weights, that its mask holds.
    least
        Smallest similarity of a match: of IoU, cosine, and weighted Jaccard.
    offset_px
        Move of the found footprints, y and x, since a program gives them on its own template; `auto` is the one at which all
        footprints together fit best, at most `largest_offset_px`.
    largest_offset_px
        Largest `auto` move.
    detectable_snr
        Least signal over noise of a detectable unit, as the truth's table `units` gives it.
    depth_um
        Borders of ranges of depth, in each of which recall is scored, too.
    lag_frames
        Largest lag of found spikes, the same for all units.
    tolerance_frames
        Largest distance of a found event from a true one.
    event_share
        A frame is an event if its spikes are at least this share of the unit's largest.
    fields
        Images of the truth, NAME.npy, by the name that they have in the found `.npz` (field_NAME).
    """

    analysis: Literal["trace_score"] = "trace_score"
    energy_share: float = Field(default=0.9, gt=0, le=1)
    least: float = Field(default=0.5, gt=0, le=1)
    offset_px: Literal["auto"] | tuple[int, int] = "auto"
    largest_offset_px: int = Field(default=10, ge=0, le=1000)
    detectable_snr: float = Field(default=3.0, ge=0)
    depth_um: tuple[float, ...] = Field(default=(), max_length=64)
    lag_frames: int = Field(default=2, ge=0, le=1000)
    tolerance_frames: int = Field(default=2, ge=0, le=1000)
    event_share: float = Field(default=0.1, gt=0, le=1)
    fields: Mapping[Name, FreeText] = {}

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(a >= b for a, b in itertools.pairwise(self.depth_um)) or len(self.depth_um) == 1:
            raise ValueError(f"depth_um: {list(self.depth_um)} are no borders of ranges; give two or more, ascending")
        return self

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open both."""
        if len(inputs) != 2:
            raise OutputError(f"a score compares what was found with a movie, not {len(inputs)} inputs; name both")
        found, truth = (str(getattr(one, "path", one)) for one in inputs)
        return Found(str(Path(found).expanduser().absolute())), Movie(truth)

    def open(self, inputs: tuple[Found, Movie]) -> Bench:
        """Check that both belong together."""
        return TraceBench(self, *inputs)


class TraceBench(Bench):
    """What was found, and the truth."""

    def __init__(self, settings: TraceScore, found: Found, truth: Movie) -> None:
        self.settings, self.found, self.truth = settings, found, truth
        truth.refuse_what_has_no_truth()
        self._refuse_another_movie()
        self.inputs = {"found": found.identity, "truth": truth.identity}
        self.blocks = 1
        self.voxels = max(1, (found.extraction.units + truth.ids.size) * truth.frames)
        self.core_seconds = 1e-7 * self.voxels + 1
        stored = found.extraction.footprints.nnz + truth.extraction.footprints.nnz
        self.block_bytes = COPIES * (8 * self.voxels + 16 * stored)

    def _refuse_another_movie(self) -> None:
        found, truth = self.found.extraction, self.truth
        if found.shape != truth.shape:
            turned = ": rows and columns are swapped" if found.shape == truth.shape[::-1] else ""
            raise OutputError(
                f"{found.name} has {found.shape[0]} x {found.shape[1]} pixels and the movie {truth.shape[0]} x "
                f"{truth.shape[1]}{turned}; name what was found in this movie, not binned or cropped"
            )
        if found.frames is not None and found.frames != truth.frames:
            raise OutputError(
                f"{found.name} has {found.frames} frames and the movie {truth.frames}; name what was found in this movie"
            )
        for name in self.settings.fields:
            if name not in found.fields:
                raise OutputError(f"{found.name} holds no field_{name}; it holds {', '.join(found.fields) or 'none'}")

    def measure(self, number: int) -> Mapping[str, Measured]:
        """Nothing: units of the whole movie are matched together."""
        return {}

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Match, and compare what is matched."""
        found, truth, settings = self.found.extraction, self.truth.extraction, self.settings
        offset = settings.offset_px
        if offset == "auto":
            offset = kernel.best_offset(found.footprints, truth.footprints, truth.shape, settings.largest_offset_px)
        weights = kernel.moved(found.footprints, truth.shape, offset)
        masks = [kernel.masks(w, settings.energy_share) for w in (weights, truth.footprints)]
        similar = {
            "iou": kernel.iou(*masks),
            "cosine": kernel.cosine(weights, truth.footprints),
            "jaccard": kernel.weighted_jaccard(weights, truth.footprints),
        }
        pairs = {name: kernel.match(each, settings.least) for name, each in similar.items()}
        snr = self.truth.snr()
        detectable = snr >= settings.detectable_snr
        counts = (found.units, truth.units, int(detectable.sum()))
        scores = [*_counted(counts, len(pairs["iou"]), detectable[pairs["iou"][:, 1]].sum())]
        for name, each in similar.items():
            scores += _matched(name, settings.least, each, pairs[name], found.units, detectable)
        scores += self._by_depth(pairs["iou"][:, 1], detectable)
        columns, compared = self._series(pairs["iou"])
        scores += [
            *(
                Score(f"offset_{a}", float(v), "pixels", "move of found footprints")
                for a, v in zip("yx", offset, strict=True)
            ),
            *compared,
            *self._shifts(),
            *self._fields(),
        ]
        best = {name: _picked(each, pairs["iou"]) for name, each in similar.items()}
        ids = self.truth.ids
        matches = {"found": pairs["iou"][:, 0], "truth": ids[pairs["iou"][:, 1]], **best, **columns}
        matched = np.isin(np.arange(ids.size), pairs["iou"][:, 1])
        units = {
            "truth": ids,
            "snr": snr,
            "detectable": detectable.astype(np.uint8),
            "matched": matched.astype(np.uint8),
        }
        return Conclusion({"matches": pa.table(matches), "units": pa.table(units)}, tuple(scores))

    def _by_depth(self, matched: NDArray[np.int64], detectable: NDArray[np.bool_]) -> Iterator[Score]:
        """Recall in each range of depth, of all planted units there."""
        depth = self.truth.cell("z_um")
        for low, high in itertools.pairwise(self.settings.depth_um):
            if depth is not None:
                there = (depth >= low) & (depth < high)
                what = f"share of the {int(there.sum())} planted units at this depth that are matched by IoU"
                yield Score(
                    "recall_of_planted", _share(there[matched].sum(), there.sum()), "", what, f"{low:g}-{high:g} um"
                )

    def _series(self, pairs: NDArray[np.int64]) -> tuple[dict[str, NDArray[Any]], list[Score]]:
        """Columns and scores of the traces and spikes of matched units."""
        found, truth, settings = self.found.extraction, self.truth.extraction, self.settings
        columns: dict[str, NDArray[Any]] = {}
        scores: list[Score] = []
        if found.traces is not None and truth.traces is not None:
            columns["trace_pearson"] = each = series.pearson(found.traces[pairs[:, 0]], truth.traces[pairs[:, 1]])
            what = "median over matched units of the correlation of a trace with the true brightness"
            scores.append(Score("trace_pearson", series.median(each), "", what))
        if found.spikes is not None and truth.spikes is not None:
            one, other = found.spikes[pairs[:, 0]], truth.spikes[pairs[:, 1]]
            lag, each = series.best_lag(one, other, settings.lag_frames)
            columns["spike_pearson"] = each
            what = "median over matched units of the correlation of spikes with the true ones at the best lag"
            scores.append(Score("spike_pearson", series.median(each), "", what))
            scores.append(Score("spike_lag", float(lag), "frames", "how late found spikes come, one lag for all units"))
            scores += self._events(*series.at_lag(one, other, lag))
        return columns, scores

    def _events(self, found: NDArray[np.float64], truth: NDArray[np.float64]) -> Iterator[Score]:
        one, other = (series.events(v, s) for v, s in ((found, self.settings.event_share), (truth, 1e-9)))
        near = sum(series.pairs_within(a, b, self.settings.tolerance_frames) for a, b in zip(one, other, strict=True))
        near_by = f"within {self.settings.tolerance_frames} frames of each other, of all matched units"
        totals = [sum(e.size for e in each) for each in (one, other)]
        yield Score(
            "spike_precision", _share(near, totals[0]), "", f"share of found events paired with true ones {near_by}"
        )
        yield Score(
            "spike_recall", _share(near, totals[1]), "", f"share of frames with spikes paired with found ones {near_by}"
        )

    def _shifts(self) -> Iterator[Score]:
        found, truth = self.found.extraction.shifts_px, self.truth.shifts_px
        if found is not None and truth is not None:
            rmse, sign = series.shift_rmse(found.astype(np.float64), truth)
            what = "root mean square over frames and both axes of the difference of shifts without their means"
            yield Score("shift_rmse", rmse, "pixels", what)
            yield Score(
                "shift_sign", float(sign), "", "-1 if found shifts are corrections, so that they were turned round"
            )

    def _fields(self) -> Iterator[Score]:
        for name, path in self.settings.fields.items():
            try:
                true = np.load(path, allow_pickle=False).astype(np.float64)
            except (OSError, ValueError) as error:
                raise OutputError(f"fields: {name}: {path} cannot be read as an image: {error}") from error
            found = self.found.extraction.fields[name]
            if found.shape != true.shape:
                raise OutputError(
                    f"fields: {name} has the shape {found.shape}, and {path} {true.shape}; store them alike"
                )
            value = series.pearson(found.reshape(1, -1), true.reshape(1, -1))[0]
            yield Score(
                "field_pearson", float(value), "", "correlation of the pixels of a field with the true ones", name
            )


def _counted(counts: tuple[int, int, int], used: int, used_detectable: Any) -> Iterator[Score]:
    texts = ("units that were found", "units with a true footprint in the image", "planted units above the SNR")
    for name, count, what in zip(("found", "planted", "detectable"), counts, texts, strict=True):
        yield Score(name, float(count), "units", what)
    yield Score("used", float(used), "units", "pairs matched by IoU, whose traces are compared")
    yield Score(
        "used_detectable", float(used_detectable), "units", "pairs matched by IoU whose true unit is detectable"
    )


def _matched(
    name: str, least: float, each: Any, pairs: NDArray[np.int64], found: int, detectable: NDArray[np.bool_]
) -> Iterator[Score]:
    """Recall, precision and mean similarity of one kind of match."""
    by = f"in a one-to-one match by {name} of at least {least:g}"
    right = detectable[pairs[:, 1]].sum()
    yield Score("recall", _share(right, detectable.sum()), "", f"share of detectable units {by}", name)
    yield Score("recall_of_planted", _share(len(pairs), detectable.size), "", f"share of all planted units {by}", name)
    yield Score("precision", _share(len(pairs), found), "", f"share of found units {by}", name)
    mean = float(_picked(each, pairs).mean()) if len(pairs) else float("nan")
    yield Score("mean", mean, "", f"mean {name} of the matches", name)


def _picked(similar: Any, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(similar[pairs[:, 0], pairs[:, 1]], np.float64).ravel() if len(pairs) else np.zeros(0)


def _share(part: Any, whole: Any) -> float:
    """A share; not known of nothing."""
    return float(part) / float(whole) if whole else float("nan")
