"""Read the `.ini` files of the 2017 program, and report all problems of a file together."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from simexm.errors import SimexmWarning, SpecError
from simexm.legacy2017.config import Config, Layer
from simexm.legacy2017.misplaced import TOP, correct_places, heading, keys_of, model_of
from simexm.legacy2017.syntax import parse, read_text

COMPUTED = ("membrane", "cytosol")
"""Regions that are computed from the ids."""


def read(path: str | Path) -> Config:
    """Read a configuration file, whose relative paths begin at the working directory, as in the original.

    Raises SpecError if the file is missing, not text, or wrong; the message lists all problems with their sections.
    """
    return from_text(read_text(Path(path)), str(path))


def from_text(text: str, name: str) -> Config:
    """Read a configuration from text; raises SpecError, with the file's name, for anything wrong."""
    parsed = parse(text)
    if not any(isinstance(value, dict) for value in parsed.sections.values()):
        raise SpecError(
            f"{name} is no .ini file of SimExm, which has the sections {', '.join(heading((s,)) for s in TOP)}; "
            "a native spec is a file that ends in .yaml or .json"
        )
    raw = parsed.sections
    problems = [*parsed.problems, *correct_places(raw, parsed.unread)]
    config = None
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        problems += (_line(p) for p in error.errors() if not _reported(p, parsed.unread))
    problems += _across(raw)
    if config is None or problems:
        head = f"{name}: " if len(problems) == 1 else f"{name} has {len(problems)} problems:\n  "
        raise SpecError(head + "\n  ".join(problems))
    _warn_of_backslashes(config)
    return config


def _reported(problem: ErrorDetails, unread: frozenset[str]) -> bool:
    """Whether a missing name is in a line that could not be read."""
    return problem["type"] == "missing" and str(problem["loc"][-1]) in unread


def _line(problem: ErrorDetails) -> str:
    """A pydantic error in words: section, key, value, and what was expected."""
    path = tuple(str(part) for part in problem["loc"])
    kind, value = problem["type"], problem.get("input")
    model, key = model_of(path[:-1]) if len(path) > 1 else None, path[-1]
    if kind == "missing":
        if model is not None and key in keys_of(model):
            return f"{heading(path[:-1])}: the key {key!r} is missing; it should be {model.expected(key)}"
        own = model_of(path)
        remedy = f"its keys are {', '.join(keys_of(own))}" if own else _NEED
        return f"the section {heading(path)} is missing; {remedy}"
    if kind == "too_short":
        return f"{heading(path)}: {_NEED}"
    if kind in ("model_type", "dict_type"):
        where = f"{heading(path[:-1])}: " if len(path) > 1 else ""
        return f"{where}{key} is a key here, and should be the section {heading(path)}"
    if isinstance(value, dict) and model is not None:
        return f"{heading(path)}: should be a key of {heading(path[:-1])}, not a section: {key} = {model.expected(key)}"
    fault = problem["msg"].removeprefix("Value error, ")
    return f"{heading(path[:-1])}: {key} = {_shown(value)} {fault}"


_NEED = "a microscope needs at least one channel, as in [[[channel_1]]] with its laser's keys"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f'"{value}"' if not value or "," in value else str(value)


def _across(raw: dict[str, Any]) -> Iterator[str]:
    """Problems across sections, found in the raw file, so that they are reported with all others."""
    masks = _inside(_inside(raw, "groundtruth"), "regions")
    for name in sorted(set(masks) & set(COMPUTED)):
        yield f"{heading(('groundtruth', 'regions', name))}: {name} is computed from the ids; give the mask another name"
    known = list(dict.fromkeys((*COMPUTED, *masks)))
    layers = {name: layer for name, layer in _inside(raw, "labeling").items() if isinstance(layer, dict)}
    if "labeling" in raw and not layers:
        yield "[labeling]: there is no layer, so nothing would be labelled; add one, as in [[layer1]] with its keys"
    for name, layer in layers.items():
        region = layer.get("region", Layer.model_fields["region"].default)
        if isinstance(region, str) and region.strip() and region not in known:
            default = "" if "region" in layer else " (the default)"
            yield f"{heading(('labeling', name))}: region = {region}{default} does not exist; {_regions(region, known)}"
    region = _inside(raw, "output").get("gt_region")
    if isinstance(region, str) and region.strip() and region not in known:
        yield f"[output]: gt_region = {region} does not exist; {_regions(region, known)}"


def _regions(region: str, known: list[str]) -> str:
    near = difflib.get_close_matches(region.casefold(), known, n=1)
    hint = f"did you mean {near[0]}? T" if near else "t"
    return f"{hint}he regions are {', '.join(known)}; further ones are sections of [groundtruth] [[regions]]"


def _inside(raw: dict[str, Any], name: str) -> dict[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, dict) else {}


def _warn_of_backslashes(config: Config) -> None:
    """Warn of Windows paths on another system, where each is one long name."""
    truth = config.groundtruth
    paths = {"[groundtruth]: image_path": truth.image_path, "[output]: path": config.output.path}
    for name, region in truth.regions.items():
        paths[f"{heading(('groundtruth', 'regions', name))}: region_path"] = region.region_path
    for key, path in paths.items():
        if os.sep == "/" and "\\" in path and not Path(path).exists():
            warnings.warn(
                f"{key} = {path} holds backslashes, which separate folders only on Windows: on this system it is one long name. "
                f"Write slashes, as in {path.replace(chr(92), '/')}, and check that it exists on this machine",
                SimexmWarning,
                stacklevel=3,
            )
