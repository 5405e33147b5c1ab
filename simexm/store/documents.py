"""JSON files that simexm wrote, read as if anybody had written them."""

from __future__ import annotations

import json
import stat
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from simexm.store.location import Location
from simexm.store.remote import Remote

DEEPEST = 32
"""Levels of nesting; a spec has about ten."""
LARGEST_BYTES = 1 << 26

_M = TypeVar("_M", bound=BaseModel)


class MalformedError(ValueError):
    """A file that is no JSON object, or not the one that is expected there; the message says where it is wrong."""


def read_mapping(path: Location) -> dict[str, Any]:
    """What a file holds.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    MalformedError
        If it is no JSON object.
    """
    if not isinstance(path, Remote):  # of which a size would cost a request
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise MalformedError("is no file")  # a pipe would never end
        if about.st_size > LARGEST_BYTES:
            raise MalformedError(f"has {about.st_size} bytes, and at most {LARGEST_BYTES} are read")
    return parse_mapping(path.read_bytes())


def parse_mapping(data: bytes) -> dict[str, Any]:
    """What JSON text holds; raises MalformedError if it is no object, or one that readers take for different things.

    These are keys given twice, NaN, and nesting beyond `DEEPEST`.
    """
    try:
        loaded = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_refuse_constant)
    except RecursionError:
        raise MalformedError(f"is nested more than {DEEPEST} deep") from None
    except MalformedError:
        raise
    except ValueError as error:
        raise MalformedError(f"is no JSON ({error})") from None
    if not isinstance(loaded, dict):
        raise MalformedError("is no JSON object")
    if _is_deeper(loaded, DEEPEST):
        raise MalformedError(f"is nested more than {DEEPEST} deep")
    return loaded


def obey(model: type[_M], value: Any) -> _M:
    """A value as a model of it; raises MalformedError with the place of the first thing that is wrong, and what."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        given = first["input"]
        shown = f" (got {ascii(given)[:80]})" if isinstance(given, str | int | float) else ""
        said = first["msg"].removeprefix("Value error, ").removeprefix("String ").removeprefix("Input ")
        raise MalformedError(f"is wrong at {ascii(where)[1:-1]}: {said}{shown}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise MalformedError(f"holds the key {ascii(key)[:80]} twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedError(f"holds {name}, which is no number")


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(v, levels - 1) for v in inner)
