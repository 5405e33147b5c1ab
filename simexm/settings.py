"""Read and write specs as YAML or JSON, and explain errors in them."""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Tag, ValidationError
from pydantic_core import ErrorDetails

from simexm.errors import SpecError
from simexm.names import printable, similar
from simexm.store.small_file import read_small


class Frozen(BaseModel):
    """An immutable model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_MERGE = "tag:yaml.org,2002:merge"


def is_ini(path: Path) -> bool:
    """Whether a file is by its name a configuration of the 2017 program, which `simexm.legacy2017` reads."""
    return path.suffix.lower() in (".ini", ".cfg")


_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml if present: ten times as fast, and it refuses deep nesting itself."""


class _Loader(_Safe):  # type: ignore[misc]
    """Safe YAML loader that refuses duplicate keys, of which PyYAML silently keeps the last."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            found = super().construct_object(node, deep=deep)
            if isinstance(found, int):
                str(found)  # raises for more digits than Python prints
        except (ValueError, OverflowError, AttributeError) as error:  # such as 5000 digits, or the 30th of February
            fault = f"{shortened(str(node.value))} cannot be read as a value; put quotes around text"
            raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark) from error
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:  # `<<`, whose keys may be overridden
                continue
            key = self.construct_object(key_node, deep=True)
            fault = None
            if not isinstance(key, Hashable):
                fault = "a key is a list or a mapping; keys are words"
            elif key in seen:
                fault = f"the key {key!r} is given twice; keep one of them"
            if fault:
                raise yaml.constructor.ConstructorError(None, None, fault, key_node.start_mark)
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def parse(text: str, name: str, what: str = "spec") -> dict[str, Any]:
    """Parse a mapping in YAML or JSON; raises SpecError, with `name` and `what` in its message, for anything else."""
    try:
        loaded = yaml.load(text, Loader=_Loader)  # noqa: S506 (a safe loader's subclass)
    except yaml.YAMLError as error:
        raise SpecError(f"{name} is not valid YAML or JSON: {_fault(error, text)}") from error
    except RecursionError:
        raise SpecError(
            f"{name}: lists or mappings are nested too deeply, and no {what} needs more than ten levels; check its brackets "
            "and indentation"
        ) from None
    if not isinstance(loaded, dict):
        should = {
            "spec": "a mapping with `source:` and `stages:`; `simexm new` prints an example",
            "settings file": "a mapping of settings, key: value; `simexm new ANALYSIS` prints an example",
        }
        raise SpecError(f"{name} should be {should.get(what, 'a mapping with `kind:` and its keys')}")
    return loaded


def shortened(text: str, most: int = 60) -> str:
    """Cut a text for a message."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def _fault(error: yaml.YAMLError, text: str) -> str:
    """The fault that YAML's parser found, with line and column."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    line = text.split("\n")[mark.line : mark.line + 1]
    tabs = line and "\t" in line[0][: mark.column + 1] and not line[0][: mark.column].strip()
    hint = "; indent with spaces, not with tabs" if tabs else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}{hint}"


def read(path: Path, what: str = "spec") -> dict[str, Any]:
    """Read a spec, or a file of another kind that `what` names; raises SpecError if it is missing or cannot be parsed."""
    try:
        text = read_small(path, what).decode("utf-8")
    except FileNotFoundError:
        folder = path.parent if path.parent.is_dir() else Path()
        near = similar(path.name, folder)
        hint = f"did you mean {' or '.join(near)}?" if near else _remedy(what)
        raise SpecError(f"there is no {what} {path}; {hint}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not text (UTF-8), and a {what} is a YAML or JSON file; {_remedy(what)}") from error
    except IsADirectoryError:
        raise SpecError(f"{path} is a folder, and a {what} is a YAML or JSON file; name the file") from None
    except OSError as error:
        raise SpecError(
            f"the {what} {path} cannot be read: {error.strerror or error}; name a file that you may read"
        ) from None
    return parse(text, str(path), what)


def _remedy(what: str) -> str:
    remedies = {
        "spec": "`simexm new > my.yaml` writes one to edit",
        "settings file": "`simexm new ANALYSIS > settings.yaml` writes one to edit",
    }
    return remedies.get(what, "examples to edit are in cluster_configs/")


def dump(data: dict[str, Any], path: Path | None = None, *, compact: bool = False) -> str:
    """Return data as YAML, or as JSON if `path` ends in .json; `compact` YAML writes lists of values on one line."""
    if path is not None and path.suffix == ".json":
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    dumper = _Compact if compact else yaml.SafeDumper
    return yaml.dump(data, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)


class _Compact(yaml.SafeDumper):
    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        inline = not any(isinstance(each, dict) for each in sequence)
        return super().represent_sequence(tag, sequence, flow_style=inline)


def explain(error: ValidationError, model: type[BaseModel], name: str, root: str = "the spec") -> SpecError:
    """Turn pydantic's errors into one message with places, faults, and for an unknown key the nearest known one."""
    problems = error.errors()
    inside = {problem["loc"][:n] for problem in problems for n in range(len(problem["loc"]))}
    # pydantic also reports a list with wrong entries as too short
    lines = [_line(p, model, root) for p in problems if p["type"] != "too_short" or p["loc"] not in inside]
    unique = list(dict.fromkeys(lines))
    head = f"{name}: " if len(lines) == 1 else f"{name} has {len(lines)} problems:\n  "
    more = [f"and {len(unique) - _SHOWN} more"] if len(unique) > _SHOWN else []
    return SpecError(printable(head + "\n  ".join(unique[:_SHOWN] + more)))


_SHOWN = 20
_WORDS = {
    **dict.fromkeys(("tuple_type", "list_type"), "should be a list, [a, b, ...]"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "should be a mapping, key: value"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "should be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "should be a number"),
}
"""A user's words for pydantic's error types."""


def _line(problem: ErrorDetails, model: type[BaseModel], root: str) -> str:
    kind, last = problem["type"], problem["loc"][-1] if problem["loc"] else ""
    if kind == "invalid_key":
        return f"the key {last} is not a word, and {root} has no such key; remove it"
    if kind == "extra_forbidden":
        where, known = _place(problem["loc"][:-1], model)
        near = difflib.get_close_matches(str(last), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{where or root}: there is no key {last!r}; {hint}"
    where, _ = _place(problem["loc"], model)
    if kind == "missing":
        if isinstance(last, int):
            return f"{where.rpartition('[')[0]} has {last} values only, and more are needed"
        return f"{where} is missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        context = problem.get("ctx", {})
        key = "stage" if where.startswith("stages") else "kind"
        found = f"{context['tag']!r} is unknown" if "tag" in context else f"`{key}:` is missing"
        known_tags = context.get("expected_tags", "those that `simexm new` shows")
        if key == "stage":
            return f"{where}: {found}; a stage is one of {known_tags}; if it is another's, install the package that brings it"
        return f"{where}: {found}; a {where} is one of {known_tags}"
    if kind == "too_long":
        context = problem.get("ctx", {})
        return (
            f"{where} has {context.get('actual_length')} entries, and at most {context.get('max_length')} are possible"
        )
    value = problem.get("input")
    shown = f" (got {shortened(repr(value))})" if isinstance(value, int | float | str) and kind != "value_error" else ""
    fault = _WORDS.get(kind, problem["msg"].removeprefix("Value error, ").replace(" after validation", ""))
    if value is None and kind in _WORDS:
        fault += ", and is empty"
    return f"{where}: {fault}{shown}" if where else f"{fault}{shown}"


def _place(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, list[str]]:
    """The path as a user writes it, and the known keys, at pydantic's location."""
    candidates: list[type[BaseModel]] = [model]
    tags: dict[str, type[BaseModel]] = {}  # of the union at the last step
    words = ""
    for part in loc:
        if isinstance(part, int):
            words += f"[{part}]"
            continue
        holders = [m for m in candidates if part in m.model_fields]
        if part in tags:
            candidates, tags = [tags[part]], {}
        elif holders:
            words += f".{part}" if words else part
            found = [pair for m in holders for pair in _models_in(m.model_fields[part].annotation)]
            candidates, tags = [m for _, m in found], dict(found)
        else:
            words += f".{part}"  # the key of a mapping
    return words, sorted({f for m in candidates for f in m.model_fields})


@typing.runtime_checkable
class OpenUnion(typing.Protocol):
    """Part of an annotation: further models that the field can hold, beside those of its type."""

    def models(self) -> Sequence[type[BaseModel]]:
        """The further models."""


def _models_in(annotation: Any, tag: str | None = None) -> list[tuple[str, type[BaseModel]]]:
    """Models that a field can hold, with their pydantic tags."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        names = [tag, *(str(annotation.model_fields[k].default) for k in ("stage",) if k in annotation.model_fields)]
        return [(name or annotation.__name__, annotation) for name in (*filter(None, names), annotation.__name__)]
    if isinstance(annotation, OpenUnion):
        return [found for model in annotation.models() for found in _models_in(model)]
    parts = typing.get_args(annotation)
    own = next((str(p.tag) for p in parts if isinstance(p, Tag)), None)
    return [found for part in parts for found in _models_in(part, own)]
