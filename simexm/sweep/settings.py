"""Settings of a sweep: which settings of a spec vary, how often each point is repeated, and what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from simexm import settings
from simexm.analysis import installed
from simexm.analysis.contract import Analysis
from simexm.names import Name
from simexm.settings import Frozen


class Range(Frozen):
    """Evenly spaced values.

    Attributes
    ----------
    first, last
        The first and the last value.
    count
        Number of values, both ends included.
    scale
        `linear`: equal differences. `log`: equal ratios.
    """

    first: float
    last: float
    count: int = Field(ge=2, le=10_000)
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.scale == "log" and min(self.first, self.last) <= 0:
            raise ValueError("a range of equal ratios needs first and last above 0; set scale to linear")
        return self

    @property
    def values(self) -> tuple[float, ...]:
        """The values."""
        return tuple(self.at(n / (self.count - 1)) for n in range(self.count))

    def at(self, share: float) -> float:
        """Return the value at a share of the way from the first to the last; to 12 digits, so that 0.3 is written so."""
        if self.scale == "log":
            return float(f"{self.first * (self.last / self.first) ** share:.12g}")
        return float(f"{self.first + (self.last - self.first) * share:.12g}")


Axis = Annotated[tuple[Any, ...], Field(min_length=1, max_length=10_000)] | Range


class Replicates(Frozen):
    """Repetitions of each point.

    Attributes
    ----------
    specimens
        Number of specimens. Of a phantom or a tissue each has a seed of its own, from the spec's on; a stored volume has one,
        unless `crops` are given.
    crops
        First voxel z y x of each specimen, as parts of one volume. The spec's `crop.shape` is the size of all.
    noise
        Number of runs of each specimen, which differ in the spec's `seed`: in dyes, activity and noise.
    """

    specimens: int = Field(default=1, ge=1, le=1000)
    crops: tuple[tuple[int, int, int], ...] = Field(default=(), max_length=1000)
    noise: int = Field(default=1, ge=1, le=1000)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.crops and self.specimens not in (1, len(self.crops)):
            raise ValueError(
                f"specimens is {self.specimens}, but there are {len(self.crops)} crops; leave specimens out"
            )
        return self

    @property
    def count(self) -> int:
        """Number of specimens."""
        return len(self.crops) or self.specimens


class Measurement(Frozen):
    """What is done with each point's result.

    Paths contain {image}, the point's result; {out}, what this measurement writes; {truth}; {spec}, the point's spec as YAML;
    and {scores}.

    Attributes
    ----------
    analysis
        An analysis of simexm or of a package, such as `objects`.
    command
        Any program of yours instead: a command line, started without a shell.
    settings
        Settings of the analysis.
    inputs
        What the analysis reads.
    score
        How what was found is scored against the truth: an analysis, such as `segmentation`. Without it, the scores of the
        analysis itself are taken; or those that the command wrote to {scores}, JSON {name: number}.
    score_settings
        Settings of the score.
    truth
        What it is scored against.
    """

    analysis: Name | None = None
    command: str | None = Field(default=None, min_length=1, max_length=10_000)
    settings: dict[str, Any] = Field(default_factory=dict)
    inputs: tuple[str, ...] = ("{image}",)
    score: Name | None = None
    score_settings: dict[str, Any] = Field(default_factory=dict)
    truth: str = "{image}/labels/cells"

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if (self.analysis is None) == (self.command is None):
            raise ValueError("give either an analysis or a command")
        if self.command is not None and self.settings:
            raise ValueError("settings are those of an analysis; write them into the command, or leave them out")
        if self.score is None and self.score_settings:
            raise ValueError("score_settings are those of a score; name it with `score:`, or leave them out")
        for text in (self.command or "", *self.inputs, self.truth):
            try:
                text.format(**dict.fromkeys(PLACES, ""))
            except (KeyError, IndexError, ValueError):
                known = ", ".join(f"{{{place}}}" for place in PLACES)
                raise ValueError(
                    f"{text!r} contains braces that are none of {known}; double those that are meant as such"
                ) from None
        self.chosen()
        self.scored()
        return self

    def chosen(self) -> Analysis | None:
        """Return the analysis with its settings; None for a command."""
        return None if self.analysis is None else _analysis(self.analysis, self.settings)

    def scored(self) -> Analysis | None:
        """Return the score with its settings, if any."""
        return None if self.score is None else _analysis(self.score, self.score_settings)


PLACES = ("image", "out", "truth", "spec", "scores")


def _analysis(name: str, chosen: dict[str, Any]) -> Analysis:
    kind = installed.load(name)  # SpecError if there is none
    try:
        return kind.model_validate(chosen)
    except ValidationError as error:
        raise ValueError(str(settings.explain(error, kind, f"the analysis {name!r}", "the settings"))) from None


class Sweep(Frozen):
    """Vary settings of a spec, and measure each point.

    Attributes
    ----------
    axes
        Values of each setting, by its path in the spec, such as `expansion.factor`, `seed` or
        `labelling.layers.membrane.density_per_um2`: a list, or a range `{first, last, count, scale}`. All
        combinations are points.
    zipped
        Groups of axes of equal length that vary together.
    hypercube
        Number of points of a Latin hypercube over all axes, instead of all combinations.
    seed
        Seed of the hypercube.
    replicates
        Repetitions of each point: specimens, and dyes and noise.
    measure
        Analyses and programs by name, run on each point.
    keep
        `scores`: remove images and what was found once they are scored. `all`: keep them, in NAME.run/points.
    """

    axes: dict[str, Axis] = Field(min_length=1, max_length=20)
    zipped: tuple[tuple[str, ...], ...] = ()
    hypercube: int | None = Field(default=None, ge=2, le=100_000)
    seed: int = Field(default=0, ge=0, lt=2**32)
    replicates: Replicates = Replicates()
    measure: dict[Name, Measurement] = Field(default_factory=dict, max_length=50)
    keep: Literal["scores", "all"] = "all"

    @model_validator(mode="after")
    def _groups(self) -> Self:
        grouped = [path for group in self.zipped for path in group]
        if missing := sorted({*grouped} - {*self.axes}):
            raise ValueError(f"zipped names {missing[0]!r}, which is none of the axes; add it to axes")
        if len(grouped) != len({*grouped}):
            raise ValueError("zipped names an axis twice; name each once")
        for group in self.zipped:
            lengths = [len(self.values(path)) for path in group]
            if len({*lengths}) > 1:
                raise ValueError(f"the zipped axes {', '.join(group)} have {lengths} values; they need equally many")
        return self

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML or JSON file; raises SpecError if it is missing or wrong."""
        return cls.from_mapping(settings.read(Path(path), "settings file"), str(path))

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], name: str = "the sweep") -> Self:
        """Validate plain data; raises SpecError with all problems."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise settings.explain(error, cls, name, "the settings") from None

    def values(self, path: str) -> tuple[Any, ...]:
        """Return the values of an axis."""
        axis = self.axes[path]
        return axis.values if isinstance(axis, Range) else axis

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """Axes that vary together, in the order of `axes`."""
        of = {path: group for group in self.zipped for path in group}
        return list(dict.fromkeys(of.get(path, (path,)) for path in self.axes))

    def combinations(self) -> list[dict[str, Any]]:
        """Return the values of each point, by path."""
        if self.hypercube:
            return self._hypercube(self.hypercube)
        found: list[dict[str, Any]] = [{}]
        for group in self.groups:
            together = list(zip(*(self.values(path) for path in group), strict=True))
            found = [{**point, **dict(zip(group, values, strict=True))} for point in found for values in together]
        return [{path: point[path] for path in self.axes} for point in found]

    def _hypercube(self, count: int) -> list[dict[str, Any]]:
        from scipy.stats import qmc

        groups = self.groups
        shares = qmc.LatinHypercube(len(groups), rng=np.random.default_rng(self.seed)).random(count)
        points = []
        for row in shares:
            share = {path: float(part) for group, part in zip(groups, row, strict=True) for path in group}
            points.append({path: self._at(path, share[path]) for path in self.axes})
        return points

    def _at(self, path: str, share: float) -> Any:
        axis = self.axes[path]
        return axis.at(share) if isinstance(axis, Range) else axis[int(share * len(axis))]


def sweep_of(given: Sweep | Mapping[str, Any] | str | Path) -> Sweep:
    """Return settings that were given as such, as plain data, or as a file."""
    if isinstance(given, Sweep):
        return given
    return Sweep.from_mapping(given) if isinstance(given, Mapping) else Sweep.load(given)
