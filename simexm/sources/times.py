"""Check the choice of a time point, and that volumes have the same time points."""

from __future__ import annotations

from simexm.errors import SourceError
from simexm.sources.words import words


def refuse_time(where: str, time: int, times: int) -> None:
    """Raise SourceError if a volume of so many time points has no such one."""
    if 0 <= time < times:
        return
    if times == 1:
        raise SourceError(
            f"{where} has one time point, so the time point {time} cannot be chosen. Leave the choice out."
        )
    raise SourceError(
        f"{where} has no time point {time}: its {times} time points are counted from 0 to {times - 1}. {words().time}"
    )


def refuse_series(where: str, times: int) -> None:
    """Raise SourceError for a volume of several time points where one is needed."""
    if times > 1:
        raise SourceError(
            f"{where} has {times} time points, and none is chosen, so cells of different times would be mixed up. "
            f"{words().time} (0 to {times - 1})"
        )


def refuse_other_times(what: str, times: int, where: str, labels: int) -> None:
    """Raise SourceError for a field of other time points than the labels; one without time axis is the same at all."""
    if times not in (1, labels):
        raise SourceError(
            f"{what} has {times} time points, and the labels {where} have {labels}, so it is unclear which belong together. "
            "Give it as many as the labels have, or one, which is then used at all times."
        )
