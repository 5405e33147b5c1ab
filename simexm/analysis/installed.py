"""Analyses by name, of simexm and of other packages: found by their entry points, and loaded when they are named."""

from __future__ import annotations

import hashlib
import inspect
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from simexm.analysis.contract import Analysis
from simexm.errors import SpecError

GROUP = "simexm.analyses"


def names() -> tuple[str, ...]:
    """Names of all installed analyses."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def load(name: str) -> type[Analysis]:
    """The class of an installed analysis.

    Raises
    ------
    SpecError
        If there is none of that name, there are several, or it cannot be loaded.
    """
    points = _points(name)
    if len(points) != 1:
        found = " and ".join(sorted(point.value for point in points))
        raise SpecError(
            f"{found} are both called {name!r}; uninstall one of them"
            if points
            else f"no analysis is called {name!r}; there are {', '.join(names())}"
        )
    try:
        kind = points[0].load()
    except Exception as error:
        raise SpecError(
            f"the analysis {name!r} ({points[0].value}) cannot be loaded: {type(error).__name__}: {error}; update its package"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Analysis)) or kind.model_fields["analysis"].default != name:
        raise SpecError(
            f"{points[0].value} is no simexm.analysis.contract.Analysis with the field "
            f'`analysis: Literal["{name}"] = "{name}"`; update its package'
        )
    return kind


def package_version(analysis: Analysis) -> dict[str, str]:
    """Version of the package that brings an analysis, with a checksum of its file; empty for those of simexm."""
    kind = type(analysis)
    if kind.__module__.startswith("simexm."):
        return {}
    dist = next((point.dist for point in _points(analysis.tag)), None)
    digest = hashlib.blake2b(Path(inspect.getfile(kind)).read_bytes(), digest_size=4).hexdigest()
    return {dist.name if dist else kind.__module__: f"{dist.version if dist else 'unknown'}+{digest}"}


def _points(name: str) -> list[EntryPoint]:
    return list(dict.fromkeys(entry_points(group=GROUP, name=name)))
