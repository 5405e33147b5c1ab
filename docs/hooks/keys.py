"""Write tables of all keys of specs and cluster files from the models that check them.

The tables of a model, and of all models in it, replace `<!-- keys: MODULE.NAME -->` in a page.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from simexm.settings import OpenUnion
from simexm.units import size

MARKER = re.compile(r"^<!-- keys: ([\w.]+) -->$", re.MULTILINE)
WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", dict: "mapping", Any: "anything"}
COLUMNS = "| key | type | unit | default | bounds | what it is |"
TAGS = ("stage", "kind")
"""Keys that name the kind of a model."""
UNITS = {
    "per_M_per_cm": "1/(M cm)",
    "per_nm3": "1/nm³",
    "per_mm3": "1/mm³",
    "per_s": "1/s",
    "per_um2": "1/µm²",
    "per_um3": "1/µm³",
    "W_per_cm2": "W/cm²",
    "counts_per_e": "counts per electron",
    "counts": "counts",
    "airy_units": "Airy discs",
    "photons": "photons",
    "pixels": "pixels",
    "e": "electrons",
    "nm": "nm",
    "um": "µm",
    "uM": "µM",
    "nM": "nM",
    "hz": "Hz",
    "m": "m",
    "us": "µs",
    "ms": "ms",
    "ns": "ns",
    "fs": "fs",
    "s": "s",
    "MHz": "MHz",
    "uW": "µW",
    "W": "W",
    "GM": "GM (10⁻⁵⁸ m⁴ s)",
    "GiB": "GiB",
}
"""Units by suffix of a name, the longest first."""
BOUNDS = {
    "gt": "above {}",
    "ge": "{} or more",
    "lt": "below {}",
    "le": "at most {}",
    "min_length": "{} or more {}",
    "max_length": "at most {} {}",
}


class Key(NamedTuple):
    """One row of a table."""

    name: str
    type: str
    unit: str
    default: str
    bounds: str
    description: str


def models(root: Any) -> list[type[BaseModel]]:
    """All models in a model or annotation, each once, in the order of the keys."""
    found: dict[type[BaseModel], None] = {}

    def walk(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation not in found:
                found[annotation] = None
                for field in annotation.model_fields.values():
                    walk(field.annotation)
        elif isinstance(annotation, OpenUnion):
            for stage in _own_stages():
                walk(stage)
        else:
            for part in typing.get_args(annotation):
                walk(part)

    walk(root)
    return list(found)


def _own_stages() -> Iterator[type[BaseModel]]:
    """The stages of simexm that are found by entry points: those of the 2017 program."""
    for point in sorted(entry_points(group="simexm.stages"), key=lambda p: p.name, reverse=True):
        if point.value.startswith("simexm."):
            yield point.load()


def keys(model: type[BaseModel]) -> list[Key]:
    """One row for each key of a model.

    Raises
    ------
    ValueError
        If a key has no description, neither of its own nor in the docstring of its class.
    """
    return [_key(model, name, field) for name, field in model.model_fields.items()]


def _key(model: type[BaseModel], name: str, field: FieldInfo) -> Key:
    description = field.description or described(model).get(name, "")
    if not description and name in TAGS:
        description = "Says which kind this is."
    if not description:
        raise ValueError(
            f"{model.__module__}.{model.__name__}.{name} has no description; add it to the docstring's Attributes"
        )
    example = _example(field)
    kind = f"text, such as `{example}`" if example else type_in_words(field.annotation)
    return Key(name, kind, unit(name), _default(field, example), bounds(field), description)


def _example(field: FieldInfo) -> str:
    """Form of a value whose type describes only the parsed value, such as a size of memory; "" for others."""
    inner = [more for part in typing.get_args(field.annotation) for more in typing.get_args(part)]
    examples = [each.examples for each in (field, *inner) if isinstance(each, FieldInfo) and each.examples]
    return str(examples[0][0]) if examples else ""


def described(model: type[BaseModel]) -> dict[str, str]:
    """Descriptions in the Attributes sections of a class and its bases, by attribute."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        section = re.search(
            r"^Attributes\n-+\n(.*?)(?=^\w[^\n]*\n-+$|\Z)",
            inspect.cleandoc(kind.__doc__ or ""),
            re.DOTALL | re.MULTILINE,
        )
        for names, text in re.findall(
            r"^(\w[^\n]*)\n((?: +[^\n]*\n?|\n)+)", section[1] if section else "", re.MULTILINE
        ):
            found.update(dict.fromkeys(re.split(r",\s*", names.partition(" :")[0]), " ".join(text.split())))
    return found


def unit(name: str) -> str:
    """The unit by the suffix of a name."""
    return next((word for end, word in UNITS.items() if name.endswith(f"_{end}")), "")


def type_in_words(annotation: Any) -> str:
    """Type of a key in words of YAML; models are links to their tables."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is types.NoneType:
        return "nothing"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{title(annotation)}](#{anchor(annotation)})"
    if origin is typing.Annotated:
        more = [type_in_words(stage) for p in parts[1:] if isinstance(p, OpenUnion) for stage in _own_stages()]
        return " or ".join([type_in_words(parts[0]), *more])
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_in_words(part) for part in parts if part is not types.NoneType)
    if origin is dict:
        return f"mapping of {type_in_words(parts[0])} to {type_in_words(parts[1])}"
    if origin is tuple:
        inner = type_in_words(parts[0])
        return f"list of: {inner}" if parts[-1] is Ellipsis else f"list of {len(parts)}: {inner}"
    return WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def bounds(field: FieldInfo) -> str:
    """Bounds of a key's value, in words."""
    return "; ".join(dict.fromkeys([*_limits(field.metadata, field.annotation), *_limits_within(field.annotation)]))


def _limits_within(annotation: Any) -> Iterator[str]:
    """Bounds in a type: of optional values, and of the elements of a list."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        fields = [part.metadata for part in parts[1:] if isinstance(part, FieldInfo)]
        yield from _limits([limit for one in fields for limit in one], parts[0])
        yield from _limits_within(parts[0])
    elif origin in (typing.Union, types.UnionType):
        yield from _limits_within(parts[0])
    elif origin is tuple:
        yield from (f"each {limit}" for limit in _limits_within(parts[0]))


def _limits(metadata: list[Any], annotation: Any) -> Iterator[str]:
    many = "entries" if typing.get_origin(annotation) in (tuple, dict) else "characters"
    for limit in metadata:
        for name, words in BOUNDS.items():
            if (value := getattr(limit, name, None)) is not None:
                yield words.format(_number(value), many)


def _number(value: Any) -> str:
    if value == 2**63:
        return "2⁶³"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(field: FieldInfo, example: str) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "left out"
    if isinstance(value, BaseModel):
        return (
            "its own defaults"
            if value == type(value).model_construct()
            else f"`{value.model_dump(mode='json', exclude_none=True)}`"
        )
    if example and isinstance(value, int):
        return f"`{size(value)}`"
    if example and isinstance(value, tuple):
        return f"`{':'.join(map(str, value))}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value != "" else "empty"


def anchor(model: type[BaseModel]) -> str:
    """Anchor of a model's table."""
    return model.__name__.lower()


def title(model: type[BaseModel]) -> str:
    """Name of a model: its tag in a spec, if it has one."""
    fields = [model.model_fields[tag] for tag in TAGS if tag in model.model_fields]
    words = [part for field in fields for part in typing.get_args(field.annotation)]
    return f"`{words[0]}`" if len(words) == 1 else model.__name__


def table(model: type[BaseModel]) -> str:
    """A heading, the start of the model's docstring, and its keys."""
    about = re.split(r"\n\n(?:Attributes|Parameters)\n-", inspect.cleandoc(model.__doc__ or ""))[0]
    lines = [f"## {title(model)} {{: #{anchor(model)} }}", "", about, "", COLUMNS, re.sub("[^|]+", "---", COLUMNS)]
    for key in keys(model):
        cells = (f"`{key.name}`", *key[1:])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def tables(name: str) -> str:
    """The tables of a model or union, by its dotted name, and of all models in it."""
    module, _, attribute = name.rpartition(".")
    return "\n\n".join(table(model) for model in models(getattr(importlib.import_module(module), attribute)))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers in a page by tables; called by MkDocs."""
    return MARKER.sub(lambda found: tables(found[1]), markdown)
