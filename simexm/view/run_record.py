"""Plan and ground truth of a result, from its own files; also of an unfinished one, or one whose labels are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simexm.errors import SimexmError
from simexm.geometry.grid import Spacing, three
from simexm.planning.plan import Plan
from simexm.result.result import Result
from simexm.sources.base import LabelSource
from simexm.spec.simulation import Spec
from simexm.spectra.colour import wavelength_to_rgb

_NO_PLAN = (OSError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class RunRecord:
    """The plan of a run, and its ground truth."""

    record: Mapping[str, Any]  # content of `plan.json`
    plan: Plan
    source: LabelSource | None  # the ground truth, if it can be opened
    missing: str = ""  # why it cannot

    @classmethod
    def of(cls, result: Result) -> RunRecord | None:
        """Read `plan.json`; None if it is missing, or another version wrote it whose specs differ."""
        try:
            record, plan = result.plan_record, result.plan()
        except _NO_PLAN:
            return None
        return cls(record, plan, *open_truth(plan.simulation))

    @property
    def simulation(self) -> Spec:
        """The spec."""
        return self.plan.simulation

    def color(self, name: str) -> str:
        """Return RRGGBB of a channel or layer, close to what the finished run stores."""
        for channel in self.simulation.microscope.all_channels:
            if channel.name == name:
                return channel.color or wavelength_to_rgb(sum(channel.passes_nm) / 2)
        layers = {layer: dye for stage in self.simulation.stages for layer, dye in stage.emits.items()}
        found = {d.name: d for d in self.simulation.fluorophores().values()}.get(layers.get(name, ""))
        return wavelength_to_rgb(found.peak_emission_nm) if found else "FFFFFF"


def truth_of(result: Result, run: RunRecord | None) -> tuple[LabelSource | None, str]:
    """Open the ground truth of a result, also of a finished one whose plan is gone; else say why that fails."""
    if run:
        return run.source, run.missing
    try:
        return open_truth(Spec.from_mapping(result.provenance["spec"]))
    except _NO_PLAN:
        return None, f"{result.place.run / 'plan.json'} cannot be read"


def open_truth(simulation: Spec) -> tuple[LabelSource | None, str]:
    """Open the ground truth of a spec; else say why that fails."""
    try:
        return simulation.source.open(), ""
    except (SimexmError, OSError, ImportError, ValueError) as error:
        return None, str(error)


def spacing_um(spacing: Spacing) -> tuple[float, float, float]:
    """Convert exact nanometres to micrometres."""
    return three(float(s) / 1000 for s in spacing)
