"""Settings of analyses as text: read files, and write commented ones to edit."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from simexm.analysis.contract import Analysis
from simexm.errors import SpecError
from simexm.plugins import tag_of
from simexm.settings import dump, explain, read

_WIDTH = 110


def load_settings(kind: type[Analysis], path: Path | None, **given: Any) -> Analysis:
    """Create an analysis with the settings of a YAML or JSON file, or with the defaults; raises SpecError for wrong settings.

    Those `given` that are not None replace them, such as options of a command.
    """
    chosen = {option: value for option, value in given.items() if value is not None}
    if unknown := [option for option in chosen if option not in kind.model_fields]:
        raise SpecError(
            f"the analysis {tag_of(kind, 'analysis')!r} has no {unknown[0]}: it reads results as they are; leave "
            f"--{unknown[0].replace('_', '-')} out"
        )
    name = str(path) if path else f"the analysis {tag_of(kind, 'analysis')!r} without --settings"
    try:
        return kind.model_validate({**(read(path, "settings file") if path else {}), **chosen})
    except ValidationError as error:
        raise explain(error, kind, name, "the settings") from error


def summary(kind: type[Analysis]) -> str:
    """First paragraph of an analysis's docstring."""
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())


def settings_of(kind: type[Analysis]) -> list[tuple[str, str, str]]:
    """Name, default as YAML (empty if required), and meaning of each setting."""
    meanings: dict[str, str] = {}
    for one in reversed(kind.__mro__):  # settings that several share are described where they are declared
        meanings |= _attributes(inspect.cleandoc(one.__dict__.get("__doc__") or ""))
    found = []
    for name, field in kind.model_fields.items():
        if name == "analysis":
            continue
        default = ""
        if not field.is_required():
            value = field.get_default(call_default_factory=True)
            default = dump({name: TypeAdapter(field.annotation).dump_python(value, mode="json")})
        found.append((name, default.partition(":")[2].rstrip(), field.description or meanings.get(name, "")))
    return found


def settings_text(kind: type[Analysis]) -> str:
    """Settings with their defaults as commented YAML to edit."""
    lines = [*_comment(summary(kind)), f"analysis: {tag_of(kind, 'analysis')}"]
    for name, default, meaning in settings_of(kind):
        lines += ["", *_comment(meaning), f"{name}:{default}" if default else f"{name}:  # required"]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH)]


def _attributes(doc: str) -> dict[str, str]:
    """Texts of the section `Attributes` of a numpydoc docstring, by name; several names may share one text."""
    section = re.search(r"^Attributes\n-+\n(.*?)(?=^\w[^\n]*\n-{3,}$|\Z)", doc, re.DOTALL | re.MULTILINE)
    found: dict[str, str] = {}
    for names, text in re.findall(
        r"^(\S[^\n]*)\n((?:[ \t]+[^\n]*\n?|\n)+)", section[1] if section else "", re.MULTILINE
    ):
        found |= dict.fromkeys(re.split(r",\s*", names.partition(":")[0].strip()), " ".join(text.split()))
    return found
