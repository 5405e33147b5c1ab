"""The points of a sweep: one validated and planned spec for each combination of values, specimen and noise."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simexm.errors import SimexmWarning, SpecError
from simexm.planning.plan import Plan
from simexm.planning.planner import make_plan
from simexm.spec.simulation import Spec
from simexm.sweep.paths import put
from simexm.sweep.settings import Sweep

_SHOWN = 20


@dataclass(frozen=True)
class Point:
    """One simulation of a sweep."""

    number: int
    """Of the combination of values, from 0 on."""
    values: Mapping[str, Any]
    """Value of each axis, by its path."""
    specimen: int
    noise: int
    spec: Spec
    plan: Plan

    @property
    def hash(self) -> str:
        """Parameter hash, the same for equal simulations."""
        return self.plan.hash

    @property
    def name(self) -> str:
        """The point for messages."""
        words = ", ".join(f"{path} {json.dumps(value)}" for path, value in self.values.items())
        return f"point {self.number} ({words}; specimen {self.specimen}, noise {self.noise})"


def points_of(spec: Spec, sweep: Sweep) -> list[Point]:
    """Validate and plan all points before anything runs.

    Raises SpecError with the problems of all points.
    """
    data = spec.to_mapping()
    _refuse_no_specimens(data, sweep)
    seeds = spec.seed, getattr(spec.source, "seed", 0)
    found: list[Point] = []
    problems: list[str] = []
    kept: dict[str, Point] = {}  # planned once, if equal
    for number, values in enumerate(sweep.combinations()):
        for specimen in range(sweep.replicates.count):
            for noise in range(sweep.replicates.noise):
                try:
                    changed = _changed(data, seeds, values, sweep, specimen, noise)
                    found.append(_planned(spec, changed, number, values, specimen, noise, kept))
                except SpecError as error:
                    where = ", ".join(f"{path} {json.dumps(value)}" for path, value in values.items())
                    problems.append(f"point {number} ({where}): {error}")
    if problems:
        unique = list(dict.fromkeys(problems))
        more = [f"and {len(unique) - _SHOWN} more"] if len(unique) > _SHOWN else []
        raise SpecError(
            f"nothing was run, since {len(unique)} points are wrong:\n  " + "\n  ".join(unique[:_SHOWN] + more)
        )
    return found


def _planned(
    spec: Spec,
    data: dict[str, Any],
    number: int,
    values: Mapping[str, Any],
    specimen: int,
    noise: int,
    kept: dict[str, Point],
) -> Point:
    key = json.dumps(data, sort_keys=True)
    if key not in kept:
        made = type(spec).from_mapping(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SimexmWarning)  # those of a point are shown once, when it runs
            kept[key] = Point(number, values, specimen, noise, made, make_plan(made))
    one = kept[key]
    return Point(number, values, specimen, noise, one.spec, one.plan)


def _refuse_no_specimens(data: Mapping[str, Any], sweep: Sweep) -> None:
    wanted = sweep.replicates
    if wanted.crops and not data.get("crop"):
        raise SpecError(
            "replicates.crops says where specimens begin, but not how large they are; give the spec crop.shape"
        )
    if not wanted.crops and wanted.specimens > 1 and not _seeded(data):
        raise SpecError(
            f"replicates.specimens is {wanted.specimens}, but the source is one stored volume, so all would be the same "
            "specimen; give replicates.crops"
        )


def _seeded(data: Mapping[str, Any]) -> bool:
    return isinstance(data["source"], dict) and data["source"].get("kind") in ("phantom", "tissue")


def _changed(
    data: dict[str, Any], seeds: tuple[int, int], values: Mapping[str, Any], sweep: Sweep, specimen: int, noise: int
) -> dict[str, Any]:
    changed = copy.deepcopy(data)
    for path, value in values.items():
        put(changed, path, value)
    if noise:
        changed["seed"] = int(changed.get("seed", seeds[0])) + noise
    if sweep.replicates.crops:
        changed["crop"]["offset"] = list(sweep.replicates.crops[specimen])
    elif specimen:
        changed["source"]["seed"] = int(changed["source"].get("seed", seeds[1])) + specimen
    return changed
