"""Time points of label volumes: which one is meant, and which volumes belong together."""

from __future__ import annotations

from simexm.errors import SourceError
from simexm.sources.words import words


def refuse_time(where: str, time: int, times: int) -> None:
    """Refuse a time point that a volume of so many time points does not have.

    Raises
    ------
    SourceError
        With those that there are.
    """
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
    """Refuse a volume of several time points where one is needed.

    Raises
    ------
    SourceError
        With what to type to choose one.
    """
    if times > 1:
        raise SourceError(
            f"{where} has {times} time points, and nothing here says which of them is meant, so cells of different times "
            f"would be mixed up. {words().time} (0 to {times - 1})"
        )


def refuse_other_times(what: str, times: int, where: str, labels: int) -> None:
    """Refuse a field whose time points are not those of the labels; one of a single time point is the same at all times.

    Raises
    ------
    SourceError
        If it has another number of time points.
    """
    if times not in (1, labels):
        raise SourceError(
            f"{what} has {times} time points, and the labels {where} have {labels}, so it is not known which belong together. "
            "Give it as many as the labels have, or one, which is then the same at all times."
        )
