"""The report on an alignment: volumes over each other before and after, checkerboards, and maps of displacement and error."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm import settings
from simexm.analysis.registration.align import Align
from simexm.analysis.registration.sides import absolute, frame_of
from simexm.analysis.registration.transform import Floats, Frame, StoredTransform, affine_at
from simexm.analysis.registration.truth import transform_at
from simexm.analysis.volume import Volume
from simexm.errors import OutputError, SpecError
from simexm.geometry.grid import Box, triple
from simexm.kernels.registration import warp
from simexm.result.result import Result, elements
from simexm.view.report.ink import INK, MUTED, new_figure, svg
from simexm.view.report.pictures import LARGEST, Drawn, Sheet

_SQUARES, _ARROWS, _REACH = 8, 16, 1.5
"""Squares of a checkerboard, and arrows, along the longest side; and the longest arrow, in distances of arrows."""
_LOW, _HIGH = 10, 99.7
"""Percentiles of the fixed or moving values that are drawn black and full."""


@dataclass(frozen=True)
class Comparison:
    """What an alignment is shown beside: paths of its volumes, and of its true transform; and which of its rounds is shown."""

    fixed: str | None = None
    moving: str | None = None
    truth: str | None = None
    round: int | None = None

    @property
    def given(self) -> bool:
        """Whether anything is named."""
        return bool(self.fixed or self.moving or self.truth or self.round)


@dataclass(frozen=True)
class _Alignment:
    """An alignment, and the box of its middle that is drawn."""

    result: Result
    round: int | None
    fixed: Volume | None
    moving: Volume | None
    truth: StoredTransform | None

    @property
    def name(self) -> str:
        """Name of the round; empty for an alignment of two volumes."""
        return f"round_{self.round:02d}" if self.round else ""

    @cached_property
    def found(self) -> StoredTransform:
        return StoredTransform(f"{self.result.path}/{self.name}".rstrip("/"))

    @property
    def read_fixed(self) -> Callable[[Box], NDArray[Any]] | None:
        """Return a box of the fixed volume, which an alignment of all rounds holds itself."""
        if self.fixed is not None:
            return self.fixed.stack.read
        return self.channel if self.round else None

    def channel(self, box: Box, number: int = 0) -> NDArray[Any]:
        """A box of a channel of the aligned image."""
        return elements(self.result.array(), (number, *box.slices))

    @property
    def frame(self) -> Frame:
        assert self.found.frame is not None
        return self.found.frame

    @cached_property
    def box(self) -> Box:
        size = triple(min(n, LARGEST) for n in self.frame.shape)
        start = triple((n - s) // 2 for n, s in zip(self.frame.shape, size, strict=True))
        return Box(start, triple(a + n for a, n in zip(start, size, strict=True)))

    @property
    def sheet(self) -> Sheet:
        return Sheet(self.box.shape, self.frame.voxel_um)

    def sections(self, read: Callable[[Box], NDArray[Any]]) -> list[NDArray[Any]]:
        """The plane (y, x), the section along x (z, x) and that along y (y, z), with any leading axes."""
        found = []
        for axis in range(3):
            middle = (self.box.start[axis] + self.box.stop[axis]) // 2
            start = triple(middle if a == axis else n for a, n in enumerate(self.box.start))
            stop = triple(middle + 1 if a == axis else n for a, n in enumerate(self.box.stop))
            found.append(np.take(read(Box(start, stop)), 0, axis=axis - 3))
        found[2] = np.swapaxes(found[2], -1, -2)
        return found

    def aligned(self, box: Box) -> NDArray[Any]:
        return self.channel(box, self.round - 1 if self.round else 0)

    def covered(self, box: Box) -> NDArray[np.bool_]:
        """Where the moving volume has values."""
        assert self.found.moving is not None
        points = self.frame.centres(box.start, box.shape)
        return warp.inside(self.found.moving.shape, self.found.moving.voxels(self.found.near(points)(points)))

    def covered_before(self, box: Box) -> NDArray[np.bool_]:
        """The same without a transform."""
        assert self.found.moving is not None
        return warp.inside(self.found.moving.shape, self.found.moving.voxels(self.frame.centres(box.start, box.shape)))

    def before(self, box: Box) -> NDArray[Any]:
        """The moving volume at the places of the fixed one, without a transform."""
        assert self.moving is not None
        at = frame_of(self.moving).voxels(self.frame.centres(box.start, box.shape))
        where = warp.inside(self.moving.shape, at)
        out = np.zeros(box.shape)
        if where.any():
            low, high = np.floor(at[:, where].min(axis=1)), np.ceil(at[:, where].max(axis=1)) + 1
            crop = Box(triple(low), triple(high)).grown((1, 1, 1)).intersect(Box.of_shape(self.moving.shape))
            inside = at[:, where] - np.asarray(crop.start)[:, None]
            out[where] = warp.image_at(self.moving.stack.read(crop), inside, 1)
        return out

    def bend(self, box: Box) -> Floats:
        """What the transform displaces beside its affine map, um, (3, z, y, x)."""
        points = self.frame.centres(box.start, box.shape)
        return np.asarray(self.found.near(points)(points) - affine_at(self.found.affine, points))

    def error(self, box: Box) -> Floats:
        """Where the transform puts points, from where the true one does, um, (3, z, y, x); NaN outside the moving volume."""
        assert self.truth is not None
        assert self.found.moving is not None
        points = self.frame.centres(box.start, box.shape)
        true = self.truth.near(points)(points)
        inside = warp.inside(self.found.moving.shape, self.found.moving.voxels(true))
        return np.where(inside, self.found.near(points)(points) - true, np.nan)


def about(result: Result, comparison: Comparison) -> dict[str, Any]:
    """Collect the page's data; raises OutputError or SpecError if a volume or transform is not that of the alignment."""
    number = _round(result, comparison.round)
    fixed, moving = (
        None if path is None else _volume(result, side, path, name)
        for side, path, name in (
            ("fixed", comparison.fixed, "fixed"),
            ("moving", comparison.moving, f"round_{number:02d}" if number else "moving"),
        )
    )
    truth = None if comparison.truth is None else transform_at(absolute(comparison.truth))
    shown = _Alignment(result, number, fixed, moving, truth)
    if truth is not None and truth.frame is not None:
        _refuse_other_extent(truth, shown.frame)
    scores = {(row["score"], row["subset"]): row for row in result.scores().to_pylist()}
    correlation = [scores["correlation", f"{shown.name} {of}".strip()]["value"] for of in ("identity", "")]
    return {
        "title": f"{result.path.stem}, round {number}" if number else result.path.stem,
        "file": result.path.name,
        "provenance": result.provenance,
        "shape": shown.frame.shape,
        "shown": shown.box.shape,
        "cropped": shown.box.shape != shown.frame.shape,
        "voxel_um": [f"{v:.4g}" for v in shown.frame.voxel_um],
        "extent_um": [float(v) for v in shown.frame.extent_um],
        "steps": [str(step["step"]) for step in result.provenance["settings"]["steps"]],
        "correlation": correlation,
        "overlays": shown.read_fixed is not None,
        "rounds": [n for n in range(2, len(result.channels) + 1) if number],
        "round": number,
        "pictures": list(_pictures(shown)),
        **_maps(shown),
        "scores": [_row(row) for row in scores.values()],
        "settings": settings.dump(json.loads(json.dumps(result.provenance["settings"])), compact=True),
    }


def _round(result: Result, number: int | None) -> int | None:
    """The round to show, by default the second; None for an alignment of two volumes. Raises OutputError for another."""
    last = len(result.channels)
    if last == 1:
        if number is None:
            return None
        raise OutputError(f"{result.path} holds one transform, not rounds; leave --round {number} out")
    if number is not None and not 2 <= number <= last:
        raise OutputError(
            f"{result.path} holds the alignments of rounds 2 to {last} with the first, so there is none of round {number}; "
            f"type --round N with one of them"
        )
    return number or 2


def _volume(result: Result, side: str, path: str, name: str) -> Volume:
    found = Align.model_validate(result.provenance["settings"]).side(side).open(path)
    if found.identity != result.provenance["inputs"][name]:
        raise OutputError(
            f"{path} is not the {name} volume of {result.path}: its voxels or their size differ, so it would be shown in a wrong "
            "place; name the volume that was aligned"
        )
    return found


def _refuse_other_extent(truth: StoredTransform, frame: Frame) -> None:
    assert truth.frame is not None
    if not np.allclose(truth.frame.extent_um, frame.extent_um, rtol=1e-3):
        raise SpecError(f"{truth.path} belongs to a fixed volume of another size; name the true transform of this pair")


def _row(row: dict[str, Any]) -> tuple[str, str, str, str]:
    value = f"{row['value']:.4g} {row['unit']}".strip()
    return row["score"].replace("_", " "), row["subset"] or "found", value, row["definition"]


def _pictures(shown: _Alignment) -> Sequence[Drawn]:
    after = _scaled(shown.sections(shown.aligned), shown.sections(shown.covered))
    if shown.read_fixed is None:
        return [shown.sheet.drawn("Aligned", lambda part: _grey(after[part]))]
    whole = [np.ones(s.shape, np.bool_) for s in after]
    fixed = _scaled(shown.sections(shown.read_fixed), whole)
    drawn = []
    if shown.moving is not None:
        before = _scaled(shown.sections(shown.before), shown.sections(shown.covered_before))
        drawn.append(shown.sheet.drawn("Before", lambda part: _over(fixed[part], before[part])))
    drawn.append(shown.sheet.drawn("Aligned", lambda part: _over(fixed[part], after[part])))
    drawn.append(
        shown.sheet.drawn(
            "Fixed and aligned volume, in turn", lambda part: _grey(_checkered(shown, fixed[part], after[part], part))
        )
    )
    return drawn


def _scaled(sections: Sequence[NDArray[Any]], covered: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.float64]]:
    """Values from 0, black, to 1, full, by percentiles of all that is covered; the rest is black."""
    values = np.concatenate([s[where] for s, where in zip(sections, covered, strict=True)])
    low, high = np.percentile(values, (_LOW, _HIGH)) if values.size else (0.0, 1.0)
    span = max(high - low, 1e-12)
    return [np.where(where, np.clip((s - low) / span, 0, 1), 0) for s, where in zip(sections, covered, strict=True)]


def _grey(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.repeat(values[..., None], 3, axis=-1)


def _over(fixed: NDArray[np.float64], moving: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([moving, fixed, moving], axis=-1)


def _checkered(
    shown: _Alignment, fixed: NDArray[np.float64], aligned: NDArray[np.float64], part: int
) -> NDArray[np.float64]:
    """Squares of both in turn, as long as the volume's longest side over `_SQUARES`, um."""
    z, y, x = shown.frame.voxel_um
    sizes = ((y, x), (z, x), (y, z))[part]
    side = max(n * v for n, v in zip(shown.box.shape, shown.frame.voxel_um, strict=True)) / _SQUARES
    rows, columns = (np.floor(np.arange(n) * v / side).astype(int) for n, v in zip(fixed.shape, sizes, strict=True))
    return np.where((rows[:, None] + columns) % 2 == 0, fixed, aligned)


def _maps(shown: _Alignment) -> dict[str, Any]:
    """Figures of the displacement, and of the error if the truth is known, with their captions."""
    bend = _figures(shown, "displacement beside the affine map", shown.sections(shown.bend))
    error = (
        [] if shown.truth is None else _figures(shown, "distance from the true transform", shown.sections(shown.error))
    )
    return {"displacements": bend, "errors": error}


def _figures(shown: _Alignment, name: str, sections: Sequence[Floats]) -> list[tuple[str, str]]:
    top = max(float(np.nanmax(np.sqrt((s**2).sum(axis=0)), initial=0)) for s in sections)
    side = max(n * v for n, v in zip(shown.box.shape, shown.frame.voxel_um, strict=True))
    longer = _rounded(_REACH * side / _ARROWS / top) if top else 1.0
    scale = "" if longer == 1 else f"; arrows are {longer:g} times as long"
    parts = enumerate(("Plane", "Section along x"))
    return [(_map(shown, name, sections[part], part, top, longer), f"{where}: {name}{scale}") for part, where in parts]


def _rounded(value: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above a value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)))


def _map(shown: _Alignment, name: str, vectors: Floats, part: int, top_um: float, longer: float) -> str:
    """A map of lengths up to `top_um`, with arrows of the components in the plane."""
    rows, columns = ((1, 2), (0, 2))[part]
    voxel = np.asarray(shown.frame.voxel_um)
    corner = np.asarray(shown.frame.corner_um) + np.asarray(shown.box.start) * voxel
    high, wide = (vectors.shape[n] * voxel[a] for n, a in ((1, rows), (2, columns)))
    figure, axes = new_figure(3.7, max(1.2, 3.0 * high / wide + 0.6))
    left, top = corner[columns], corner[rows]
    length = np.sqrt((vectors**2).sum(axis=0))
    seen = axes.imshow(
        length, extent=(left, left + wide, top + high, top), cmap="viridis", vmin=0, vmax=top_um or 1, aspect="equal"
    )
    step = max(1, round(max(high, wide) / _ARROWS / min(voxel[rows], voxel[columns])))
    steps = [max(1, round(step * min(voxel[rows], voxel[columns]) / voxel[a])) for a in (rows, columns)]
    y, x = (np.arange(s // 2, n, s) for s, n in zip(steps, length.shape, strict=True))
    at = np.ix_(y, x)
    axes.quiver(
        left + (x + 0.5) * voxel[columns],
        top + (y + 0.5) * voxel[rows],
        longer * vectors[columns][at],
        longer * vectors[rows][at],
        angles="xy",
        scale_units="xy",
        scale=1,
        color="white",
        width=0.004,
    )
    axes.grid(visible=False)
    axes.set_xlabel(f"{'zyx'[columns]}, µm")
    axes.set_ylabel(f"{'zyx'[rows]}, µm", color=MUTED, fontsize=8)
    bar = figure.colorbar(seen, ax=axes, shrink=0.9, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, labelsize=8, length=2)
    return svg(figure, f"Map of the {name} in {('the plane', 'the section along x')[part]}, µm")
