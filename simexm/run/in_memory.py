"""The whole pipeline on arrays in memory: NumPy in, NumPy out, no cluster, the same block code."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SimexmWarning, SpecError
from simexm.jobs.sums_by_id import add_up
from simexm.kernels.emission.emit import Emitters
from simexm.planning.plan import Plan
from simexm.planning.planner import make_plan
from simexm.run.block import EmitterSink, compute_rounds
from simexm.run.passes import counted_in_memory
from simexm.run.tables import barcode_table, cell_table, emitter_columns
from simexm.run.totals import Totals
from simexm.sources.arrays import ArrayVolume
from simexm.sources.base import ZarrSource
from simexm.sources.fields import Field, masks_of
from simexm.spec.simulation import Spec


@dataclass(frozen=True)
class Simulated:
    """What `simulate` returns.

    Attributes
    ----------
    image
        (channels, z, y, x): camera counts; photo-electrons or dyes where the run stops earlier. Where there are rounds, one such
        image for each, (rounds, channels, z, y, x).
    labels
        Ids on the image's grid, (z, y, x), by name: `cells`, and each layer.
    kept
        Intermediate results that the spec keeps, by name, (channels or layers, z, y, x); of each round, as `image`.
    cells
        Columns of the table of cells.
    emitters
        Columns of the table of emitters; empty unless kept.
    plan
        What was done; `plan.shape`, `plan.geometry`.
    barcodes, amplicons
        Columns of the tables of barcodes and amplicons; empty where there are no rounds.
    """

    image: NDArray[Any]
    labels: dict[str, NDArray[Any]]
    kept: dict[str, NDArray[Any]]
    cells: dict[str, NDArray[Any]]
    emitters: dict[str, NDArray[Any]]
    plan: Plan
    barcodes: dict[str, NDArray[Any]] = field(default_factory=dict)
    amplicons: dict[str, NDArray[Any]] = field(default_factory=dict)


def simulate(
    labels: NDArray[Any],
    simulation: Spec,
    *,
    voxel_size_nm: tuple[float, float, float] | None = None,
    regions: Mapping[str, NDArray[Any]] | None = None,
    fields: Sequence[tuple[Field, NDArray[Any]]] = (),
    until: str | None = None,
) -> Simulated:
    """Simulate labels that are in memory.

    Parameters
    ----------
    labels
        Cell ids, (z, y, x), integers; 0 is outside every cell. They take the place of the spec's source.
    simulation
        What to do.
    voxel_size_nm
        z, y, x, nm of tissue; left out, that of the spec's source.
    regions
        Masks of further regions, (z, y, x), by name.
    fields
        Further fields, what each is and its array, (z, y, x). Names of classes are regions, too.
    until
        Stop after this stage.

    Raises
    ------
    SimexmError
        If the labels or the spec cannot be used.
    """
    if not isinstance(simulation, Spec):
        raise SpecError(
            f"the simulation is a {type(simulation).__name__}; make one of it by Simulation.load(path) or "
            "Simulation.from_mapping(data)"
        )
    size = simulation.source.voxel_size_nm if voxel_size_nm is None else voxel_size_nm
    if size is None:
        raise SpecError("the voxel size of the labels is unknown; give voxel_size_nm=(z, y, x) in nm of tissue")
    source = ArrayVolume(labels, size, regions, fields)
    if not source.any():
        raise SpecError("every label is 0, so there is no cell to label and the image would be noise alone")
    named = simulation.model_copy(
        update={"source": ZarrSource(path="memory://labels", regions=dict.fromkeys(masks_of(source.fields), "-"))}
    )
    plan = make_plan(Spec.from_mapping(named.model_dump()), until=until, source=source)
    plan.warn()
    arrays: dict[str, NDArray[Any]] = {
        o.group: np.zeros(plan.shape if o.is_labels else (len(o.channels), *plan.shape), o.dtype) for o in plan.outputs
    }
    rows: list[dict[str, NDArray[Any]]] = []

    def keep(layer: str, emitters: Emitters, ids: NDArray[np.uint64]) -> None:
        rows.append({k: np.array(v) for k, v in emitter_columns(plan, layer, emitters, ids).items()})

    sink: EmitterSink | None = keep if "emitters" in simulation.keep else None
    if sink is not None:  # the columns are there even where no dye is
        sink(next(iter(plan.world.dye_of_layer)), Emitters.empty(0), np.zeros(1, np.uint64))
    counts, amplicons, totals = [], [], Totals()
    counted = counted_in_memory(plan, source)
    for box in plan.blocks:
        for block in compute_rounds(plan, source, counted, box, sink):
            for output in plan.outputs:
                if output.round == block.round:
                    arrays[output.group][(..., *box.slices)] = block.arrays[output.path]
        counts.append(block.cells)
        amplicons.append(block.amplicons)
        totals.add(block.statistics)
    sums = add_up(counts)
    totals.lacking = plan.barcodes.lacking(sums.ids) if plan.barcodes else 0
    for text in totals.warnings(plan):
        warnings.warn(text, SimexmWarning, stacklevel=2)

    def image(path: str) -> NDArray[Any]:
        """An image, or those of all rounds."""
        found = [arrays[o.group] for o in plan.outputs if o.path == path]
        return np.stack(found) if plan.barcodes else found[0]

    return Simulated(
        image=image(""),
        labels={o.path.removeprefix("labels/"): arrays[o.group] for o in plan.outputs if o.is_labels},
        kept={o.path: image(o.path) for o in plan.outputs if o.path and not o.is_labels and o.round <= 1},
        cells=cell_table(plan, sums, counted),
        emitters={k: np.concatenate([r[k] for r in rows]) for k in rows[0]} if rows else {},
        plan=plan,
        barcodes=barcode_table(plan, sums) if plan.barcodes else {},
        amplicons={k: np.concatenate([a[k] for a in amplicons]) for k in amplicons[0]} if amplicons else {},
    )
