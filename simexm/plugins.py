"""Classes of other packages: found by their entry points, and loaded when they are named, never otherwise.

A spec is data. What it names is looked up among the entry points of one group, that is, among packages that somebody installed on
purpose; no word of a spec is a path to code.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from simexm.errors import SpecError

T = TypeVar("T")


@cache
def installed(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Entry points of a group, by name."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=group):
        if point not in found.get(point.name, ()):
            found[point.name] = (*found.get(point.name, ()), point)
    return found


@cache
def load(group: str, name: str, base: type[T], field: str) -> type[T]:
    """The class of an entry point.

    Parameters
    ----------
    group, name
        Of the entry point.
    base
        What the class must be a subclass of, a pydantic model.
    field
        The field of it whose default is the name: `stage`, `analysis`.

    Raises
    ------
    SpecError
        If there is none of that name, there are several, or it cannot be imported or is something else.
    """
    points = installed(group).get(name, ())
    if not points:
        raise SpecError(f"no {field} is called {name!r}; there are {', '.join(sorted(installed(group)))}")
    if len(points) > 1:
        raise SpecError(f"{' and '.join(map(_package, points))} both bring a {field} {name!r}; uninstall one of them")
    (point,) = points
    what = f"the {field} {name!r} of the package {_package(point)} ({point.value})"
    try:
        found: Any = point.load()
    except Exception as error:
        raise SpecError(f"{what} cannot be loaded: {type(error).__name__}: {error}; update that package") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise SpecError(f"{what} is no subclass of {base.__module__}.{base.__name__}; update that package")
    if tag_of(found, field) != name:
        raise SpecError(f'{what} goes by another name; give it the field `{field}: Literal["{name}"] = "{name}"`')
    return found


def tag_of(kind: type[Any], field: str) -> str | None:
    """The name by which a class goes: the default of a field of its model; None where it has none."""
    found = kind.model_fields.get(field)
    return None if found is None else str(found.default)


def versions(group: str, field: str, used: Iterable[object]) -> dict[str, str]:
    """Versions of the packages that bring these objects' classes; nothing for those of simexm itself.

    Each has a checksum of the class's file behind it, which may be edited in place.
    """
    versions: dict[str, str] = {}
    for each in used:
        kind = type(each)
        if not kind.__module__.startswith("simexm."):
            point = next(iter(installed(group).get(str(tag_of(kind, field)), ())), None)
            package, dist = (_package(point), point.dist) if point else (kind.__module__, None)
            digest = hashlib.blake2b(Path(inspect.getfile(kind)).read_bytes(), digest_size=4).hexdigest()
            versions[package] = f"{dist.version if dist else 'unknown'}+{digest}"
    return versions


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value
