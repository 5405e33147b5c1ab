"""Counts and errors of paired localisations, added up frame by frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.contract import Score

ALPHA_PER_NM = {"lateral": 0.01, "axial": 0.005}
"""Weight of the error in the efficiency."""


class Tally:
    """Right, missed and wrong ones, and the errors of the pairs.

    Emitters below `least_photons` do not count, nor does what was found there.
    """

    def __init__(self, least_photons: float, axial: bool, lateral_nm: float, axial_nm: float) -> None:
        self.least, self.axial = least_photons, axial
        self.within = f"{lateral_nm:g} nm" + (f" ({axial_nm:g} nm along z)" if axial else "")
        self.right = self.missed = self.wrong = 0
        self.photons = 0.0
        self._sums = {
            axis: np.zeros(5) for axis in "zyx"
        }  # d, d^2, d^2/bound^2, d/bound^2, number with bound and 1/bound^2
        self._weight = dict.fromkeys("zyx", 0.0)

    def add(self, is_truth: NDArray[np.bool_], frame: Mapping[str, NDArray[Any]], pairs: NDArray[np.int64]) -> None:
        """Add a frame, whose rows of found and true ones are paired, (n, 2)."""
        counts = frame["photons"][pairs[:, 1]] >= self.least
        kept = pairs[counts]
        self.right += len(kept)
        self.missed += int((frame["photons"][is_truth] >= self.least).sum()) - len(kept)
        self.wrong += int((~is_truth).sum()) - len(pairs)
        one, other = kept[:, 0], kept[:, 1]
        true = frame["photons"][other]
        self.photons += float((frame["photons"][one][true > 0] / true[true > 0]).sum())
        for axis in "zyx" if self.axial else "yx":
            error = frame[f"{axis}_nm"][one] - frame[f"{axis}_nm"][other]
            bound = frame[f"{axis}_precision_nm"][one]
            known = np.isfinite(bound) & (bound > 0)
            weight = 1.0 / bound[known] ** 2
            self._sums[axis] += [
                error.sum(), (error**2).sum(), (error[known] ** 2 * weight).sum(), (error[known] * weight).sum(), known.sum()
            ]  # fmt: skip
            self._weight[axis] += float(weight.sum())

    def scores(self) -> Iterator[Score]:
        """All scores."""
        least = f", of emitters with at least {self.least:g} photons in the frame" if self.least else ""
        right, missed, wrong = self.right, self.missed, self.wrong
        jaccard = right / max(1, right + missed + wrong)
        yield Score("pairs", float(right), "", f"found and true ones within {self.within} of each other{least}")
        yield Score("jaccard", jaccard, "", f"pairs / (pairs + missed + wrong){least}")
        yield Score("precision", right / max(1, right + wrong), "", f"pairs / all found{least}")
        yield Score("recall", right / max(1, right + missed), "", f"pairs / all emitters that were on{least}")
        n = max(1, right)
        square = {axis: float(self._sums[axis][1]) / n for axis in "zyx"}
        rmse = {"lateral": math.sqrt(square["y"] + square["x"])}
        if self.axial:
            rmse["axial"] = math.sqrt(square["z"])
        for name, value in rmse.items():
            what = "sqrt(mean of dy^2 + dx^2)" if name == "lateral" else "sqrt(mean of dz^2)"
            yield Score(f"rmse_{name}", value if right else math.nan, "nm", f"{what} of the pairs")
        for name, value in rmse.items():
            alpha = ALPHA_PER_NM[name]
            efficiency = 1 - math.hypot(1 - jaccard, alpha * value) if right else math.nan
            what = f"1 - sqrt((1 - jaccard)^2 + ({alpha:g} / nm * rmse_{name})^2)"
            yield Score(f"efficiency_{name}", efficiency, "", what)
        for axis in "zyx" if self.axial else "yx":
            yield from self._of_axis(axis, n)
        yield Score("photons", self.photons / n, "", "mean of found photons / true photons of the pairs")

    def _of_axis(self, axis: str, n: int) -> Iterator[Score]:
        total, squares, weighted, product, known = self._sums[axis].tolist()
        bias = total / n
        yield Score(f"bias_{axis}", bias, "nm", f"mean of found less true {axis}")
        yield Score(f"sd_{axis}", math.sqrt(max(0.0, squares / n - bias**2)), "nm", "standard deviation of the same")
        if known:
            # the sum of (d - bias)^2 / bound^2, from sums that need no second pass
            ratio = (weighted - 2 * bias * product + bias**2 * self._weight[axis]) / known
            yield Score(
                f"sd_over_bound_{axis}",
                math.sqrt(max(0.0, ratio)),
                "",
                f"root mean square of (d{axis} - bias) / {axis}_precision_nm",
            )
