"""How dyes switch on and off: presets, DNA-PAINT, or rates of your own.

`unchecked` names what was not compared with its source, or was chosen to meet figures that are themselves from memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.kernels.emission import photophysics
from simexm.kernels.switching import exact
from simexm.kernels.switching.chain import Law
from simexm.settings import Frozen

Array = NDArray[np.float64]
ON = "on"
ACTIVATION_NM = 405.0
Rate = Annotated[float, Field(ge=0, le=1e9)]
Rates = dict[str, dict[str, Rate]]
MOST_STATES = 16


@dataclass(frozen=True)
class SwitchingFigures:
    """One dye: rates per second, per excitation, and per photon of 405 nm; its first state; where they come from."""

    per_s: Rates
    per_excitation: Rates
    per_activation: Rates
    activation_extinction_per_M_per_cm: float
    start: str
    source: str
    unchecked: tuple[str, ...] = ()


_ORDER = "rates chosen to meet an order of magnitude that is from memory"
PRESETS: Mapping[str, SwitchingFigures] = {
    "Alexa 647": SwitchingFigures(
        per_s={"dark": {"on": 500.0, "anion": 50.0}, "anion": {"on": 2.5e-3}},
        per_excitation={"on": {"dark": 7e-5, "anion": 1e-7, "bleached": 8e-7}},
        per_activation={"anion": {"on": 0.1}},
        activation_extinction_per_M_per_cm=400.0,
        start="on",
        source="rates of the simulator SMIS; a thiol buffer",
        unchecked=("bleaching from the short dark state is left out, as its absorption is not known",),
    ),
    "ATTO 655": SwitchingFigures(
        per_s={"dark": {"on": 0.05}},
        per_excitation={"on": {"dark": 3e-5, "bleached": 2e-6}},
        per_activation={},
        activation_extinction_per_M_per_cm=0.0,
        start="on",
        source="order of magnitude of Dempsey et al., Nature Methods 8, 1027 (2011): some 900 detected photons an event",
        unchecked=(_ORDER, "bleaching after some 16 events"),
    ),
    "ATTO 488": SwitchingFigures(
        per_s={"dark": {"on": 0.05}},
        per_excitation={"on": {"dark": 6e-5, "bleached": 6e-6}},
        per_activation={},
        activation_extinction_per_M_per_cm=0.0,
        start="on",
        source="order of magnitude of Dempsey et al., Nature Methods 8, 1027 (2011): some 1200 detected photons an event",
        unchecked=(_ORDER, "bleaching after some 11 events"),
    ),
    "mEos": SwitchingFigures(
        per_s={"green": {"on": 1e-4}, "dark": {"on": 5.0}},
        per_excitation={"on": {"dark": 6e-5, "bleached": 4e-5}},
        per_activation={"green": {"on": 1e-3}},
        activation_extinction_per_M_per_cm=30_000.0,
        start="green",
        source="a green form, converted once to the red one, which blinks two or three times and bleaches",
        unchecked=(_ORDER, "all rates, the yield of conversion, and the extinction at 405 nm"),
    ),
}


class Binding(Frozen):
    """Imager strands that bind to a docking site and leave it (DNA-PAINT): dark for 1 / (k_on c), bright for 1 / k_off.

    Attributes
    ----------
    concentration_nM
        Imager in solution.
    k_on_per_M_per_s
        Rate of association; 1e6 is usual of 9 to 10 nt.
    bright_s
        Mean time that an imager stays bound.
    """

    concentration_nM: float = Field(gt=0, le=1e6)
    k_on_per_M_per_s: float = Field(default=1e6, gt=0, le=1e10)
    bright_s: float = Field(gt=0, le=1e5)


class Switching(Frozen):
    """How one dye switches: a preset, a binding, or rates.

    Attributes
    ----------
    preset
        `Alexa 647`, `ATTO 655`, `ATTO 488` or `mEos`.
    binding
        DNA-PAINT.
    rates_per_s, per_excitation
        Rates by state and next state, per second, and per excitation of a dye that is on. The state `on` emits light, all others
        are dark; one that is left nowhere, such as `bleached`, is final.
    start
        State at time 0, or `equilibrium`. By default that of the preset, equilibrium of a binding, else `on`.
    activation_W_per_cm2
        Irradiance of 405 nm, which brings dyes of some presets back.
    """

    preset: Literal["Alexa 647", "ATTO 655", "ATTO 488", "mEos"] | None = None
    binding: Binding | None = None
    rates_per_s: Rates = Field(default_factory=dict, max_length=MOST_STATES)
    per_excitation: Rates = Field(default_factory=dict, max_length=MOST_STATES)
    start: str | None = None
    activation_W_per_cm2: float = Field(default=0.0, ge=0, le=1e6)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        rates = bool(self.rates_per_s or self.per_excitation)
        if [self.preset is not None, self.binding is not None, rates].count(True) != 1:
            raise ValueError(
                "switching needs exactly one of preset, binding, and rates (rates_per_s, per_excitation); give one"
            )
        if self.activation_W_per_cm2 and not (self.preset and PRESETS[self.preset].per_activation):
            able = ", ".join(name for name, one in PRESETS.items() if one.per_activation)
            raise ValueError(
                f"activation_W_per_cm2 is given, but 405 nm brings back only dyes of the presets {able}; leave it out"
            )
        if len(self.states) > MOST_STATES:
            raise ValueError(f"{len(self.states)} states are more than the {MOST_STATES} possible; merge some")
        if ON not in self.states:
            raise ValueError(
                "no state is named on, so the dye would never emit; name the state that emits `on`, as in rates_per_s: {on: "
                "{dark: 20}, dark: {on: 0.1}}"
            )
        for state, after in self._tables(1.0, 1.0).items():
            if state in after:
                raise ValueError(f"a rate leads from the state {state!r} to itself, which changes nothing; remove it")
        if self.first not in (*self.states, "equilibrium"):
            raise ValueError(f"start is {self.first!r}, but the states are {', '.join(self.states)}; name one of them")
        if self.first == "equilibrium":
            final = [s for s, out in zip(self.states, self.rates(1.0).sum(axis=1), strict=True) if out == 0]
            if final:
                raise ValueError(
                    f"start equilibrium: in the long run every dye is {final[0]}, so nothing would be on; name a state"
                )
        return self

    # ---------------------------------------------------------------- the chain

    @property
    def figures(self) -> SwitchingFigures | None:
        """Those of the preset."""
        return None if self.preset is None else PRESETS[self.preset]

    @property
    def first(self) -> str:
        """State at time 0."""
        if self.start is not None:
            return self.start
        return self.figures.start if self.figures else "equilibrium" if self.binding else ON

    def _tables(self, excitations: float, activations: float) -> dict[str, dict[str, float]]:
        """Rates per second, by state and next state."""
        one = self.figures
        if self.binding is not None:
            b = self.binding
            parts: list[tuple[Rates, float]] = [
                ({ON: {"dark": 1 / b.bright_s}, "dark": {ON: b.k_on_per_M_per_s * b.concentration_nM * 1e-9}}, 1.0)
            ]
        elif one is not None:
            parts = [(one.per_s, 1.0), (one.per_excitation, excitations), (one.per_activation, activations)]
        else:
            parts = [(self.rates_per_s, 1.0), (self.per_excitation, excitations)]
        found: dict[str, dict[str, float]] = {}
        for rates, times in parts:
            for state, after in rates.items():
                for following, rate in after.items():
                    row = found.setdefault(state, {})
                    row[following] = row.get(following, 0.0) + rate * times
        return found

    @property
    def states(self) -> tuple[str, ...]:
        """All states, `on` first."""
        tables = self._tables(1.0, 1.0)
        names = dict.fromkeys([*tables, *(name for after in tables.values() for name in after)])
        return tuple(sorted(names, key=lambda name: (name != ON, list(names).index(name))))

    def rates(self, excitations_per_s: float) -> Array:
        """Rates per second, (from, to), of a dye that is excited so often while it is on."""
        activations = 0.0
        if self.activation_W_per_cm2 and self.figures:
            section = photophysics.cross_section_m2(self.figures.activation_extinction_per_M_per_cm)
            activations = photophysics.excitation_rate_per_s(section, self.activation_W_per_cm2 * 1e4, ACTIVATION_NM)
        tables, states = self._tables(excitations_per_s, activations), self.states
        found = np.zeros((len(states), len(states)))
        for state, after in tables.items():
            for following, rate in after.items():
                found[states.index(state), states.index(following)] = rate
        return found

    def begins(self, rates: Array) -> Array:
        """Probabilities of the states at time 0."""
        if self.first == "equilibrium":
            return np.round(exact.equilibrium(rates), 12)
        return np.array([float(state == self.first) for state in self.states])

    def law(self, excitations_per_s: float) -> Law:
        """What the kernels need; rounded, so that it is the same on every machine."""
        rates = self.rates(excitations_per_s)
        leaves = rates.sum(axis=1)
        share = np.cumsum(rates, axis=1) / np.where(leaves > 0, leaves, 1.0)[:, None]
        return Law(leaves, np.round(share, 12), np.cumsum(self.begins(rates)))
