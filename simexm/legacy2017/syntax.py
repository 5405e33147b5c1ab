"""Parse the bytes of a 2017 configuration file, in ConfigObj's syntax, to nested sections."""

from __future__ import annotations

import codecs
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configobj import ConfigObj, ConfigObjError, DuplicateError, InterpolationError, NestingError, Section  # type: ignore[import-untyped]

from simexm.errors import SimexmWarning, SpecError
from simexm.store.small_file import read_small

_HEADER = re.compile(r"^\s*(\[[\[\s]*)([^\[\]#]*)([\]\s]*)")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Parsed:
    """The readable sections of a file, messages on the other lines, and the names in these, not to be reported as missing."""

    sections: dict[str, Any]
    problems: tuple[str, ...]
    unread: frozenset[str]


def read_text(path: Path) -> str:
    """Read a file as UTF-8, as UTF-16 after a byte order mark, else as Windows-1252 with a warning.

    Raises SpecError if it is missing or not text.
    """
    try:
        data = read_small(path, "configuration")
    except FileNotFoundError:
        raise SpecError(f"there is no configuration file {path}; check the path") from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a folder, not a configuration file; name the .ini file in it") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror or error}; name a file that you may read") from None
    text = _decoded(data, path)
    if text is None or _CONTROL.search(text):
        raise SpecError(
            f"{path} is not a text file, so it is no .ini file of SimExm; name another, or save it as UTF-8 in an editor"
        )
    return text


def _decoded(data: bytes, path: Path) -> str | None:
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.encoding.startswith("utf-16"):
            return None
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return None
    if not _CONTROL.search(text):
        _warn_of_windows(data, path)
    return text


def _warn_of_windows(data: bytes, path: Path) -> None:
    lines = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            lines.append(f"line {number} as {line.decode('cp1252').strip()!r}")
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    warnings.warn(
        f"{path} is not UTF-8; it was read as Windows-1252: {', '.join(lines[:3])}{more}. If a path or name is wrong "
        "there, its files will not be found: save the file as UTF-8",
        SimexmWarning,
        stacklevel=2,
    )


def parse(text: str) -> Parsed:
    """Parse ConfigObj's syntax: [a], [[b]], lists with commas, quotes, comments after #, %(key)s.

    A line that cannot be read is reported, repaired or removed, and the rest is read.
    """
    lines = re.split(r"\r\n|\r|\n", text)
    problems: dict[int, str] = {}
    unread: set[str] = set()
    while True:
        try:
            config = ConfigObj(list(lines), list_values=True)
            break
        except ConfigObjError as error:
            for single in error.errors:
                n = single.line_number - 1
                if not lines[n].strip():  # removed with its section before
                    continue
                again = n in problems
                problems.setdefault(n, f"line {n + 1}, {_fault(single, lines, n)}")
                unread.add(_name(lines[n]))
                _repair(lines, n, single, again)
    messages = [problems[n] for n in sorted(problems)]
    return Parsed(_plain(config, messages, ""), tuple(messages), frozenset(unread))


def _repair(lines: list[str], n: int, error: ConfigObjError, again: bool) -> None:
    """Repair line n if it should open a section, else remove it, a duplicate section with its content."""
    header = _HEADER.match(lines[n])
    if header and header[2].strip() and not again and not isinstance(error, DuplicateError):
        depth = header[1].count("[")
        if "too nested" in str(error):
            depth -= 1
        lines[n] = "[" * depth + header[2].strip() + "]" * depth
        return
    lines[n] = ""
    if header:
        for k in range(n + 1, len(lines)):
            if _HEADER.match(lines[k]):
                break
            lines[k] = ""


def _fault(error: ConfigObjError, lines: list[str], n: int) -> str:
    line, text = lines[n].strip(), str(error)
    section = _section_of(lines, n)
    place = f"in {section}: " if section else ""
    if isinstance(error, DuplicateError):
        kind = "section" if _HEADER.match(line) else "key"
        return f"{place}the {kind} {_name(line)!r} is given twice; keep one of them"
    if isinstance(error, NestingError) or line.startswith("["):
        if "too nested" in text:
            return f"{place}{line} has too many brackets; the section that should contain it is missing"
        return f"{place}the brackets of {line} do not match; a section is [a], a section inside it [[b]], then [[[c]]]"
    if "multiline" in text:
        return f"{place}the triple quotes of {_name(line)!r} are not closed; close them"
    if "=" not in line:
        return f"{place}{line!r} is neither a section, [name], nor a key, name = value; a comment begins with #"
    return f"{place}the value in {line!r} cannot be read; check its quotes and commas"


def _name(line: str) -> str:
    """The key or section of a line."""
    header = _HEADER.match(line)
    name = header[2].strip() if header else re.split(r"[=\s:]", line.strip(), maxsplit=1)[0]
    return name.strip("\"'")


def _section_of(lines: list[str], n: int) -> str:
    """The section of line n, as in the file."""
    path: list[str] = []
    for line in lines[:n]:
        header = _HEADER.match(line)
        if header and header[2].strip():
            depth = header[1].count("[")
            path = [*path[: depth - 1], "[" * depth + header[2].strip() + "]" * depth]
    return " ".join(path)


def _plain(section: Section, problems: list[str], place: str) -> dict[str, Any]:
    """The section as a dictionary, with %(key)s interpolated."""
    plain: dict[str, Any] = {}
    for key in (*section.scalars, *section.sections):
        try:
            value = section[key]
        except InterpolationError as error:
            problems.append(
                f"{place or 'the top'}: {key}: {str(error).rstrip('.')}; write the value instead of %(...)s"
            )
            value = dict.__getitem__(section, key)
        if isinstance(value, Section):
            brackets = "[" * value.depth, "]" * value.depth
            value = _plain(value, problems, f"{place} {brackets[0]}{key}{brackets[1]}".strip())
        plain[key] = value
    return plain
