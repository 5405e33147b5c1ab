"""Simulate arrays in memory: NumPy in, NumPy out, no cluster, the same block code."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.arguments import whole_number
from simexm.errors import SimexmWarning, SpecError
from simexm.jobs.sums_by_id import CellSums, add_up
from simexm.kernels.emission.points import Emitters
from simexm.planning.plan import Plan
from simexm.planning.planner import make_plan
from simexm.run.block import Columns, EmitterSink, compute_frames
from simexm.run.passes import counted_in_memory
from simexm.run.tables import emitter_columns, finished
from simexm.run.totals import Totals
from simexm.sources.arrays import ArrayVolume
from simexm.sources.base import StoredField, ZarrSource
from simexm.sources.fields import Field, masks_of
from simexm.sources.words import ARRAYS, speaking
from simexm.spec.simulation import Spec


@dataclass(frozen=True)
class Simulated:
    """Result of `simulate`."""

    image: NDArray[Any]
    """(channels, z, y, x): camera counts; photo-electrons or dyes if the run stops earlier. Frame axes come first:
    (rounds, channels, z, y, x), (rounds, times, channels, z, y, x)."""
    labels: dict[str, NDArray[Any]]
    """Ids on the image's grid, (z, y, x), by name: `cells`, and each layer; with frame axes first if tissue moves."""
    kept: dict[str, NDArray[Any]]
    """Intermediate results that the spec keeps, by name, (channels or layers, z, y, x), with frame axes as in
    `image`."""
    tables: dict[str, dict[str, NDArray[Any]]]
    """Columns of the tables that the stages declare, by name: `cells`; `emitters` if they are kept."""
    plan: Plan
    """The plan; see `plan.shape`, `plan.geometry`."""

    @property
    def cells(self) -> dict[str, NDArray[Any]]:
        """Columns of the cell table."""
        return self.tables["cells"]

    @property
    def emitters(self) -> dict[str, NDArray[Any]]:
        """Columns of the emitter table; empty unless kept."""
        return self.tables.get("emitters", {})


@speaking(ARRAYS)
def simulate(
    labels: NDArray[Any],
    simulation: Spec,
    *,
    voxel_size_nm: tuple[float, float, float] | None = None,
    regions: Mapping[str, NDArray[Any]] | None = None,
    fields: Sequence[tuple[Field, NDArray[Any]]] = (),
    until: str | None = None,
    axes: str = "zyx",
    time: int | None = None,
) -> Simulated:
    """Simulate labels that are in memory.

    Parameters
    ----------
    labels
        Cell ids, (z, y, x) or as in `axes`, integers; 0 is outside every cell. They replace the spec's source.
    simulation
        The spec.
    voxel_size_nm
        z, y, x, nm of tissue; by default that of the spec's source.
    regions
        Masks of further regions, (z, y, x), by name.
    fields
        Further fields with their arrays, (z, y, x). Names of classes are regions, too.
    until
        Stop after this stage.
    axes
        Axes of the labels: "zyx"; "tzyx" for a time series; "tyx" for a series of single planes.
    time
        Time point of a series, from 0 on; by default that of the spec's source.

    Raises
    ------
    SimexmError
        The labels or the spec cannot be used.
    """
    plan, source = _planned(labels, simulation, voxel_size_nm, regions, fields, axes, time, until)
    plan.warn()
    arrays: dict[str, NDArray[Any]] = {
        o.group: np.zeros((*(n for n in (o.times, len(o.channels)) if n), *plan.shape), o.dtype) for o in plan.outputs
    }
    rows: list[dict[str, NDArray[Any]]] = []

    def keep(layer: str, emitters: Emitters, ids: NDArray[np.uint64]) -> None:
        rows.append({k: np.array(v) for k, v in emitter_columns(plan, layer, emitters, ids).items()})

    sink: EmitterSink | None = keep if "emitters" in simulation.keep else None
    if sink is not None:  # so that the columns exist even without any dye
        sink(next(iter(plan.context.dye_of_layer)), Emitters.empty(0), np.zeros(1, np.uint64))
    totals = Totals()
    parts: dict[str, list[CellSums]] = {}
    kept_rows: dict[str, list[Columns]] = {}
    counted = counted_in_memory(plan, source)
    for box in plan.blocks:
        for block in compute_frames(plan, source, counted, box, sink):
            for output in plan.outputs:
                if output.made_in(block.frame):
                    whole = arrays[output.group]
                    part = whole[output.at(block.frame)] if output.times else whole
                    part[(..., *box.slices)] = block.arrays[output.path]
        for name, sums in block.sums.items():
            parts.setdefault(name, []).append(sums)
        for name, columns in block.rows.items():
            kept_rows.setdefault(name, []).append(columns)
        totals.add(block.statistics)
    tables = {name: _joined(some) for name, some in kept_rows.items()}
    if rows:
        tables["emitters"] = _joined(rows)
    for table in plan.tables:
        if table.product.merge == "sum":
            tables |= finished(plan, table.product, add_up(parts[table.product.name]), counted, totals.sums)
    for text in totals.warnings(plan):
        warnings.warn(text, SimexmWarning, stacklevel=2)

    def image(path: str) -> NDArray[Any]:
        """Stack an image of all frames with which it varies, along their axes."""
        found = [o for o in plan.outputs if o.path == path]
        axes = [a for a in plan.acquisition.axes if a.name in found[0].varies and a.name != "time"]
        images = np.stack([arrays[o.group] for o in found])
        return images.reshape(*(len(a.coordinates) for a in axes), *images.shape[1:])

    return Simulated(
        image=image(""),
        labels={o.path.removeprefix("labels/"): image(o.path) for o in plan.outputs if o.is_labels},
        kept={o.path: image(o.path) for o in plan.outputs if o.path and not o.is_labels},
        tables=tables,
        plan=plan,
    )


def _planned(
    labels: NDArray[Any],
    simulation: Spec,
    voxel_size_nm: tuple[float, float, float] | None,
    regions: Mapping[str, NDArray[Any]] | None,
    fields: Sequence[tuple[Field, NDArray[Any]]],
    axes: str,
    time: int | None,
    until: str | None,
) -> tuple[Plan, ArrayVolume]:
    """Make the plan, and wrap the arrays as a source; see `simulate`."""
    if not isinstance(simulation, Spec):
        raise SpecError(
            f"the simulation is a {type(simulation).__name__}; convert it with Simulation.load(path) or "
            "Simulation.from_mapping(data)"
        )
    size = simulation.source.voxel_size_nm if voxel_size_nm is None else voxel_size_nm
    if size is None:
        raise SpecError("the voxel size of the labels is unknown; pass voxel_size_nm=(z, y, x) in nm of tissue")
    if time is None and "t" in axes:
        time = getattr(simulation.source, "time", None)
    time = None if time is None else whole_number("time", time, 0)
    source = ArrayVolume(labels, size, regions, fields, axes=axes, time=time)
    if not source.any():
        raise SpecError("every label is 0, so there is no cell to label and the image would be only noise")
    masks = dict.fromkeys(masks_of(source.fields), "-")
    greys = {name: StoredField(path="-", kind="grey") for name, field in source.fields.items() if field.kind == "grey"}
    stored = ZarrSource(path="memory://labels", time=time, regions=masks, fields=greys)
    named = simulation.model_copy(update={"source": stored})
    return make_plan(Spec.from_mapping(named.model_dump()), until=until, source=source), source


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
