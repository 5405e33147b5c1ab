"""Valid names in specs and files, and safe printing of text that comes from a file.

Names become files, arrays, columns and messages. Names read from a result, which anybody may have written, must match the same
patterns as those of a spec.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import unicodedata
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

LONGEST = 64
"""Characters of a name."""
NAME = r"^[A-Za-z][A-Za-z0-9_-]*$"
"""Names of layers and channels."""
REGION = r"^[^\W\d][\w-]*$"
"""Names of regions: letters of any alphabet."""
REGION_RULE = f"choose one of letters, digits, - and _ that begins with a letter, {LONGEST} characters at most"
GROUP = r"^[^\W\d][\w-]*(/[^\W\d][\w-]*){0,2}$"
"""A group below a result's root, such as `labels/cells` or `round_02/expected`."""

Name = Annotated[str, Field(pattern=NAME, max_length=LONGEST)]
LabelName = Annotated[str, Field(pattern=REGION, max_length=2 * LONGEST + 1)]
"""`LAYER` or `LAYER_REGION`."""
Group = Annotated[str, Field(pattern=GROUP, max_length=4 * LONGEST)]

_KEPT = "\n\t"
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # without Cn: unassigned characters differ between Python versions
_JOINERS = "\u200c\u200d"  # inside emoji and some scripts
_PLAIN = re.compile(r"[\x20-\x7e\n\t]*")


def is_region(name: str) -> bool:
    """Whether this is a valid name of a region."""
    return len(name) <= LONGEST and "\n" not in name and re.match(REGION, name) is not None


def _region(name: str) -> str:
    if not is_region(name):
        raise ValueError(f"{name!a} cannot be the name of a region, which becomes part of paths; {REGION_RULE}")
    return name


RegionName = Annotated[str, Field(max_length=LONGEST, json_schema_extra={"pattern": REGION}), AfterValidator(_region)]


def printable(text: str) -> str:
    """Escape control characters but line ends and tabs, so that a text cannot move a terminal's cursor or reverse lines."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(c if c in _KEPT or not _is_control(c) else ascii(c)[1:-1] for c in text)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in _UNSHOWN and character not in _JOINERS


def _free_text(text: str) -> str:
    wrong = next((c for c in text if _is_control(c)), None)
    if wrong is not None:
        raise ValueError(
            f"{text!a} holds the control character {wrong!a}, which would garble terminals and files; leave it out"
        )
    return text


FreeText = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_free_text)]
"""Names of experiments and dyes: any text of one line."""


def similar(name: str, folder: Path) -> list[str]:
    """Return up to three names in a folder that are like a missing one; none if the folder cannot be listed."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
    return difflib.get_close_matches(name, names)
