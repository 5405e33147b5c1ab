"""Stages of other packages: found by their entry point, and loaded when a spec names them, never otherwise.

A spec is data. What it names is looked up among the entry points of the group `simexm.stages`, that is, among packages that
somebody installed on purpose; no word of a spec is a path to code.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, SchemaValidator, core_schema

from simexm.errors import SpecError
from simexm.stages.contract import Stage

GROUP = "simexm.stages"


@cache
def installed() -> Mapping[str, tuple[EntryPoint, ...]]:
    """Entry points of stages, by the stage's name."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=GROUP):
        if point not in found.get(point.name, ()):
            found[point.name] = (*found.get(point.name, ()), point)
    return found


@cache
def load(name: str) -> type[Stage]:
    """The class of an installed stage.

    Raises
    ------
    SpecError
        If it cannot be imported, or is no stage of that name.
    """
    points = installed()[name]
    if len(points) > 1:
        raise SpecError(f"{' and '.join(map(_package, points))} both bring a stage {name!r}; uninstall one of them")
    (point,) = points
    told = f"the stage {name!r} of the package {_package(point)} ({point.value})"
    try:
        stage = point.load()
    except Exception as error:
        raise SpecError(
            f"{told} cannot be loaded: {type(error).__name__}: {error}; mend or update that package"
        ) from error
    if not (isinstance(stage, type) and issubclass(stage, Stage)):
        raise SpecError(f"{told} is no subclass of simexm.stages.contract.Stage; mend that package")
    field = stage.model_fields.get("stage")
    if field is None or field.default != name:
        raise SpecError(f'{told} goes by another name; give it the field `stage: Literal["{name}"] = "{name}"`')
    return stage


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def versions(stages: Iterable[Stage]) -> dict[str, str]:
    """Versions of the packages that bring these stages, each with a checksum of the file, which may be edited in place."""
    found: dict[str, str] = {}
    for stage in stages:
        kind = type(stage)
        if kind.__module__.startswith("simexm."):  # of which the version is told anyway
            continue
        (point,) = installed()[str(kind.model_fields["stage"].default)]
        text = Path(inspect.getfile(kind)).read_bytes()
        version = point.dist.version if point.dist else "unknown"
        found[_package(point)] = f"{version}+{hashlib.blake2b(text, digest_size=4).hexdigest()}"
    return found


class OrInstalled:
    """Annotation of a union of built-in stages, told apart by `stage`: lets it hold installed ones, too.

    A built-in stage cannot be replaced.

    Parameters
    ----------
    built_in
        Their names.
    """

    def __init__(self, built_in: Iterable[str]) -> None:
        self.built_in = tuple(built_in)

    def models(self) -> list[type[Stage]]:
        """The installed stages that can be loaded."""
        found = []
        for name in installed():
            if name not in self.built_in:
                try:
                    found.append(load(name))
                except SpecError:  # told where a spec names it
                    continue
        return found

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        as_it_is = core_schema.wrap_serializer_function_ser_schema(lambda v, h: h(v), schema=core_schema.any_schema())
        return core_schema.no_info_wrap_validator_function(self._validate, handler(source), serialization=as_it_is)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        known = handler(schema)
        for stage in self.models():
            known["oneOf"].append(handler(stage.__pydantic_core_schema__))
        return known

    def _validate(self, value: Any, built_in: Any) -> Any:
        name = value.get("stage") if isinstance(value, Mapping) else getattr(value, "stage", None)
        if not isinstance(name, str) or name in self.built_in:
            return built_in(value)
        if name not in installed():
            names = (*self.built_in, *installed())
            expected = {"discriminator": "'stage'", "tag": name, "expected_tags": ", ".join(map(repr, names))}
            raise PydanticKnownError("union_tag_invalid", expected)
        choices = {name: load(name).__pydantic_core_schema__}
        return SchemaValidator(core_schema.tagged_union_schema(choices, "stage")).validate_python(value)
