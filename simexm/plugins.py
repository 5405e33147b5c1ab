"""Classes of other packages, found by their entry points and loaded only when they are named.

A spec is data: its names are looked up among the entry points of installed packages, and never used as a path to code.
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
    """Load the class of an entry point: a subclass of the model `base` whose `field` (stage, analysis) has that name.

    Raises SpecError if there are none or several of that name, or it cannot be imported or is another object.
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
    """The name of a class: the default of a field of its model; None if it has no such field."""
    found = kind.model_fields.get(field)
    return None if found is None else str(found.default)


def versions(group: str, field: str, used: Iterable[object]) -> dict[str, str]:
    """Versions of the packages of these objects' classes, except simexm, each with a checksum of the class's file.

    The checksum finds edits of packages that are installed in place.
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
