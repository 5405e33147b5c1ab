"""Read JSON files of results, which anyone may have written."""

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
    """A file is no JSON object, or not the expected one; the message says where it is wrong."""


def read_mapping(path: Location) -> dict[str, Any]:
    """Read a JSON object; raises OSError if the file cannot be read, else as `parse_mapping`."""
    if not isinstance(path, Remote):  # there, a size would cost a request
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise MalformedError("is no regular file")  # a pipe might never end
        if about.st_size > LARGEST_BYTES:
            raise MalformedError(f"has {about.st_size} bytes, and at most {LARGEST_BYTES} are read")
    return parse_mapping(path.read_bytes())


def parse_mapping(data: bytes) -> dict[str, Any]:
    """Parse JSON text; raises MalformedError if it is no object, or has duplicate keys, NaN, or nesting beyond `DEEPEST`."""
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


def validate(model: type[_M], value: Any) -> _M:
    """Validate a value; raises MalformedError with the place and the fault of the first error."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        value = first["input"]
        shown = f" (got {ascii(value)[:80]})" if isinstance(value, str | int | float) else ""
        fault = first["msg"].removeprefix("Value error, ").removeprefix("String ").removeprefix("Input ")
        raise MalformedError(f"is wrong at {ascii(where)[1:-1]}: {fault}{shown}") from None


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
