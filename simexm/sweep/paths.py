"""Dotted paths into a spec, such as `expansion.factor` or `labelling.layers.membrane.density_per_um2`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from simexm.errors import SpecError


def put(data: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a path of a spec as plain data, in place.

    The first word is a key of the spec or the name of a stage. Entries of lists are named by their `name`, or counted from 0.
    Keys that are not given yet are added: whether they exist is found when the spec is validated.

    Raises SpecError if the path leads nowhere; it names what is there.
    """
    *way, last = path.split(".")
    here: Any = data
    for n, word in enumerate(way):
        so_far = ".".join(way[: n + 1])
        here = _stage(data, word, path) if n == 0 and not _is_root(data, word) else _step(here, word, so_far, path)
    if not way and not _is_root(data, last):
        raise _nowhere(path, last, [*_ROOT, *_tags(data)], "the spec")
    if isinstance(here, list):
        here[_index(here, last, path, path)] = value
    elif isinstance(here, dict):
        here[last] = value
    else:
        raise SpecError(
            f"the axis {path!r} leads below {'.'.join(way)}, which is {here!r} and has no keys; shorten the path"
        )


_ROOT = ("name", "seed", "source", "crop", "dyes", "curves", "keep", "execution")
"""Keys of a spec beside its stages."""


def _is_root(data: Mapping[str, Any], word: str) -> bool:
    return word in _ROOT and word not in _tags(data)


def _tags(data: Mapping[str, Any]) -> list[str]:
    return [str(stage["stage"]) for stage in data["stages"]]


def _stage(data: Mapping[str, Any], word: str, path: str) -> dict[str, Any]:
    found = [stage for stage in data["stages"] if stage["stage"] == word]
    if not found:
        raise _nowhere(path, word, [*_tags(data), *_ROOT], "the spec")
    if len(found) > 1:
        raise SpecError(
            f"the axis {path!r} does not say which of {len(found)} stages {word} it changes; give the spec one of them"
        )
    chosen: dict[str, Any] = found[0]
    return chosen


def _step(here: Any, word: str, so_far: str, path: str) -> Any:
    if isinstance(here, list):
        return here[_index(here, word, so_far, path)]
    if not isinstance(here, dict):
        raise SpecError(f"the axis {path!r} leads to {so_far}, which does not exist; shorten the path")
    return here.setdefault(word, {})


def _index(here: Sequence[Any], word: str, so_far: str, path: str) -> int:
    names = [str(each.get("name", n)) if isinstance(each, dict) else str(n) for n, each in enumerate(here)]
    if word in names:
        return names.index(word)
    if word.isdecimal() and int(word) < len(here):
        return int(word)
    raise _nowhere(path, word, names, so_far.rpartition(".")[0])


def _nowhere(path: str, word: str, known: Sequence[str], where: str) -> SpecError:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"
    return SpecError(f"the axis {path!r}: {where} has no {word!r}; {hint}")
