"""Report keys and sections that are misspelt, unknown or misplaced, and correct them, so that the rest can be checked."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from simexm.legacy2017.config import Channel, Expansion, GroundTruth, Labeling, Layer, Optics, Output, Region, Section

Path = tuple[str, ...]

TOP: dict[str, type[Section]] = {
    "groundtruth": GroundTruth, "labeling": Labeling, "expansion": Expansion, "optics": Optics, "output": Output,
}  # fmt: skip
MANY: dict[Path, type[Section]] = {
    ("labeling",): Layer, ("groundtruth", "regions"): Region, ("optics", "channels"): Channel,
}  # fmt: skip
"""Sections with any number of subsections, named by the user."""
_HOLDERS = {"regions": ("groundtruth", "regions"), "channels": ("optics", "channels")}
_NAMED: dict[str, Path] = {**{name: (name,) for name in TOP}, **_HOLDERS}


def heading(path: Path) -> str:
    """A section as in the file: [labeling] [[layer1]]."""
    return " ".join("[" * depth + name + "]" * depth for depth, name in enumerate(path, 1))


def model_of(path: Path) -> type[Section] | None:
    """The model of a section; None for an unknown section or one with only subsections."""
    return TOP.get(path[0]) if len(path) == 1 else MANY.get(path[:-1])


def keys_of(model: type[Section]) -> list[str]:
    """The keys of a section, in order, without its subsections."""
    return [name for name in model.model_fields if name not in _HOLDERS]


def correct_places(raw: dict[str, Any], reported: frozenset[str]) -> list[str]:
    """Move, rename or remove wrong sections and keys in place; return a message for each but the `reported` names."""
    problems: list[str] = []
    while (found := next(_wrong_sections(raw), None)) is not None:
        path, wanted, message = found
        section = _at(raw, path[:-1]).pop(path[-1])
        if path[-1] not in reported:
            problems.append(message)
        if wanted is not None:
            holder = _at(raw, wanted[:-1], make=True)
            if holder is not None:
                holder.setdefault(wanted[-1], section)
    for path in ((), *(p for p, _ in _sections(raw))):
        problems += _wrong_keys(raw, path)
    return problems


def _sections(raw: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    for name, value in list(raw.items()):
        if isinstance(value, dict):
            yield (*path, name), value
            yield from _sections(value, (*path, name))


def _at(raw: dict[str, Any], path: Path, make: bool = False) -> Any:
    """The section at a path, created if `make` is set; None if a key has its name."""
    section: Any = raw
    for name in path:
        section = section.setdefault(name, {}) if make else section[name]
        if not isinstance(section, dict):
            return None
    return section


def _wrong_sections(raw: dict[str, Any]) -> Iterator[tuple[Path, Path | None, str]]:
    """(path, correct path, message) of each misplaced section."""
    for path, section in _sections(raw):
        wanted = _home(path, section)
        if wanted == path:
            continue
        above = f" in {heading(path[:-1])}" if len(path) > 1 else ""
        if wanted is None:
            below = [n for n, p in _NAMED.items() if p[:-1] == path[:-1]]
            known = f"its sections are {', '.join(below)}" if below else "it holds no sections"
            if len(path) == 1:
                known = f"the sections are {', '.join(TOP)}"
            yield path, None, f"there is no section {heading(path)}; {known}"
        elif wanted[-1] != path[-1]:
            yield path, wanted, f"there is no section {heading(path)}; did you mean {heading(wanted)}?"
        else:
            own = "[" * len(path) + path[-1] + "]" * len(path)
            yield path, wanted, f"the section {own}{above} is at the wrong place; it belongs at {heading(wanted)}"


def _home(path: Path, section: dict[str, Any]) -> Path | None:
    """The correct path of a section, from its keys or its name; None if unknown."""
    name, above = path[-1], path[:-1]
    holder = model_of(above) if above else None
    if _NAMED.get(name) == path or (holder is not None and name in keys_of(holder)):
        return path  # a section in place of a key is reported as a wrong value
    near = difflib.get_close_matches(name.casefold(), _NAMED, n=1, cutoff=0.75) if above not in MANY else []
    keys = {key for key, value in section.items() if not isinstance(value, dict)}
    by_keys = [many for many, model in MANY.items() if keys & set(model.model_fields)]
    if by_keys and (not near or len(keys) == len(section)):  # with subsections it is rather one of the named sections
        return (*by_keys[0], name)
    if near or name in _NAMED:
        return _NAMED[near[0] if near else name]
    return path if above in MANY else None


def _wrong_keys(raw: dict[str, Any], path: Path) -> Iterator[str]:
    section, model = _at(raw, path), model_of(path) if path else None
    if model is None and path and path not in _NAMED.values():
        return
    known = keys_of(model) if model else []
    for key in [k for k, v in section.items() if not isinstance(v, dict)]:
        if key in known or (*path, key) in _NAMED.values():
            continue
        value = section.pop(key)
        where = heading(path) if path else "before the first section"
        said = f"{where}: there is no key {key!r}"
        homes = [(name,) for name, m in TOP.items() if key in keys_of(m)]
        below = [(*holder, "NAME") for holder, m in MANY.items() if key in keys_of(m)]
        near = difflib.get_close_matches(key.casefold(), known, n=1, cutoff=0.6)
        if homes or below:
            yield f"{said}; it belongs into {' or '.join(heading(home) for home in homes + below)}"
            if len(homes) == 1 and not below:
                holder = _at(raw, homes[0], make=True)
                if holder is not None:
                    holder.setdefault(key, value)
        elif near:
            yield f"{said}; did you mean {near[0]!r}?"
            section.setdefault(near[0], value)
        else:
            yield f"{said}; " + (f"the keys are {', '.join(known)}" if known else "remove it")
