"""Accept stages of other packages in a spec; see `simexm.plugins`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, SchemaValidator, core_schema

from simexm import plugins
from simexm.errors import SpecError
from simexm.stages.contract import Stage

GROUP = "simexm.stages"


def installed() -> Mapping[str, object]:
    """Entry points of stages, by stage name."""
    return plugins.installed(GROUP)


def load(name: str) -> type[Stage]:
    """Load an installed stage; see `simexm.plugins.load` for errors."""
    return plugins.load(GROUP, name, Stage, "stage")


def versions(stages: Iterable[Stage]) -> dict[str, str]:
    """Versions of the packages that provide these stages."""
    return plugins.versions(GROUP, "stage", stages)


class OrInstalled:
    """Annotation that lets a union of built-in stages, discriminated by `stage`, hold installed stages, too.

    An installed stage cannot replace a built-in one.
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
                except SpecError:  # raised again if a spec names the stage
                    continue
        return found

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        unchanged = core_schema.wrap_serializer_function_ser_schema(lambda v, h: h(v), schema=core_schema.any_schema())
        return core_schema.no_info_wrap_validator_function(self._validate, handler(source), serialization=unchanged)

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
