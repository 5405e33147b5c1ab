"""How a result is or was made, as far as its own files tell: also of one that is not finished, or whose labels are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simexm.errors import SimexmError
from simexm.geometry.grid import Spacing
from simexm.planning.plan import Plan
from simexm.result.result import Result
from simexm.sources.base import LabelSource
from simexm.spec.simulation import Spec
from simexm.spectra.colour import wavelength_to_rgb

_NO_PLAN = (OSError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Making:
    """The plan of a run, read back from `plan.json`.

    Attributes
    ----------
    record
        What `plan.json` holds.
    plan
        The plan itself.
    source
        The ground truth; None where it cannot be reached.
    missing
        Why not.
    """

    record: Mapping[str, Any]
    plan: Plan
    source: LabelSource | None
    missing: str = ""

    @classmethod
    def of(cls, result: Result) -> Making | None:
        """Read it back; None where `plan.json` is gone, or was written by a version that knows other specs."""
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
        """RRGGBB of a channel or layer, near to what the run gives it when it is done."""
        for channel in self.simulation.microscope.all_channels:
            if channel.name == name:
                return channel.color or wavelength_to_rgb(sum(channel.band_nm) / 2)
        layers = {layer: dye for stage in self.simulation.stages for layer, dye in stage.emits.items()}
        found = {d.name: d for d in self.simulation.fluorophores().values()}.get(layers.get(name, ""))
        return wavelength_to_rgb(found.peak_emission_nm) if found else "FFFFFF"


def truth_of(result: Result, making: Making | None) -> tuple[LabelSource | None, str]:
    """The ground truth of a result, also of a finished one whose plan is gone; or why it cannot be read."""
    if making:
        return making.source, making.missing
    try:
        return open_truth(Spec.from_mapping(result.provenance["spec"]))
    except _NO_PLAN:
        return None, f"{result.place.run / 'plan.json'} cannot be read"


def open_truth(simulation: Spec) -> tuple[LabelSource | None, str]:
    """The ground truth of a spec, or why it cannot be read."""
    try:
        return simulation.source.open(), ""
    except (SimexmError, OSError, ImportError, ValueError) as error:
        return None, str(error)


def spacing_um(spacing: Spacing) -> tuple[float, float, float]:
    """Exact nanometres as micrometres."""
    z, y, x = (float(s) / 1000 for s in spacing)
    return z, y, x
