"""Specs as text: YAML or JSON in, YAML or JSON out, and what is wrong with them in words."""

from __future__ import annotations

import difflib
import json
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from simexm.errors import SpecError


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, where PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice; keep one of them", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse(text: str, name: str) -> dict[str, Any]:
    """Parse YAML (of which JSON is a part); `name` stands in messages.

    Raises
    ------
    SpecError
        If the text is no YAML, or not a mapping.
    """
    try:
        loaded = yaml.load(text, Loader=_Loader)  # noqa: S506 (a safe loader's subclass)
    except yaml.YAMLError as error:
        raise SpecError(f"{name} is not valid YAML or JSON: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise SpecError(f"{name} should be a mapping with `source:` and `stages:`; `simexm new` prints an example")
    return loaded


def read(path: Path) -> dict[str, Any]:
    """Read a spec file.

    Raises
    ------
    SpecError
        If there is no such file, or it cannot be parsed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        folder = path.parent if path.parent.is_dir() else Path()
        near = difflib.get_close_matches(path.name, [p.name for p in folder.iterdir() if p.is_file()], n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "`simexm new > my.yaml` writes one to edit"
        raise SpecError(f"there is no spec {path}; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"the spec {path} cannot be read: {error}") from error
    return parse(text, str(path))


def dump(data: dict[str, Any], path: Path | None = None) -> str:
    """Return data as YAML, or as JSON where `path` ends in .json."""
    if path is not None and path.suffix == ".json":
        return json.dumps(data, indent=2) + "\n"
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def explain(error: ValidationError, model: type[BaseModel], name: str) -> SpecError:
    """Turn pydantic's errors into one message: where, what, and for an unknown key the nearest known one."""
    lines = []
    for problem in error.errors():
        where, known = _place(problem["loc"], model)
        if problem["type"] == "extra_forbidden":
            key = str(problem["loc"][-1])
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            lines.append(f"{where}: there is no key {key!r}; {hint}")
        elif problem["type"] == "missing":
            lines.append(f"{where} is missing")
        elif problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
            context = problem.get("ctx", {})
            found = f"{context['tag']!r} is none" if "tag" in context else "`stage:` is missing"
            lines.append(
                f"{where}: {found}; a stage is one of {context.get('expected_tags', 'those `simexm new` shows')}"
            )
        else:
            value = problem.get("input")
            shown = (
                f" (got {value!r})" if isinstance(value, int | float | str) and problem["type"] != "value_error" else ""
            )
            lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}{shown}")
    head = f"{name}: " if len(lines) == 1 else f"{name} has {len(lines)} problems:\n  "
    return SpecError(head + "\n  ".join(dict.fromkeys(lines)))


def _place(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, list[str]]:
    """(path as a person writes it, keys known at the last step) for pydantic's location."""
    candidates: list[type[BaseModel]] = [model]
    words = ""
    last = len(loc) - 1
    for i, part in enumerate(loc):
        if isinstance(part, int):
            words += f"[{part}]"
            continue
        holders = [m for m in candidates if part in m.model_fields]
        if holders:
            words += f".{part}" if words else part
            candidates = [n for m in holders for n in _models_in(m.model_fields[part].annotation)]
            continue
        tagged = [m for m in candidates if part == m.__name__ or _tag(m) == part]
        if tagged:
            candidates = tagged
        elif i != last:
            words += f".{part}"  # the key of a mapping
    return words or "the spec", sorted({f for m in candidates for f in m.model_fields})


def _tag(model: type[BaseModel]) -> object:
    for name in ("stage", "kind"):
        if name in model.model_fields:
            return model.model_fields[name].default
    return None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in typing.get_args(annotation) for m in _models_in(a)]
