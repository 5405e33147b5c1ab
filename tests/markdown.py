"""Markdown pages, their code blocks, and a folder to run them in."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from typer.testing import CliRunner

from simexm.cli import app

ROOT = Path(__file__).resolve().parents[1]


class Block(NamedTuple):
    """A fenced block: the word after the fence, and the text."""

    kind: str
    text: str


def pages() -> list[str]:
    """All pages of the project, by their path."""
    found = [
        *ROOT.glob("*.md"),
        *(p for folder in ("docs", "pipelines", "benchmarks", "simexm") for p in ROOT.glob(f"{folder}/**/*.md")),
    ]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(*found) for found in re.findall(r"^```([a-z]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)]


def block(page: str, word: str) -> Block:
    """The first block of a page that contains a word."""
    return next(each for each in blocks(page) if word in each.text)


def make_shell(place: Path) -> None:
    """Let `type_in` find `simexm` in a folder, as pip would put it there."""
    (place / "bin").mkdir()
    put_command(
        place, "simexm", "from simexm.cli import main\n\nif __name__ == '__main__':\n    main()", sys.executable
    )


def put_command(place: Path, name: str, body: str, program: str = "/bin/sh") -> None:
    """Add a command that `type_in` finds in a folder."""
    (place / "bin" / name).write_text(f"#!{program}\n{body}\n")
    (place / "bin" / name).chmod(0o755)


def type_in(line: str, place: Path) -> str:
    """Run a line in a shell in the folder; return its standard output."""
    path = f'PATH="{place}/bin:$PATH"; export PATH; {line}'
    done = subprocess.run(
        ["/bin/sh", "-ec", path], cwd=place, check=True, timeout=200, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def type_here(line: str, place: Path) -> str:
    """Run a line `simexm WORDS... [> FILE]` in this process, as a shell in the folder would; return its output.

    It saves the start of a new Python; `type_in` is for whatever else stands in a line.
    """
    words, file = shlex.split(line, comments=True), ""
    if words[-2:-1] == [">"]:
        words, file = words[:-2], words[-1]
    assert words[0] == "simexm", line
    assert not {";", "&&", "||", "|", "&", ">"} & set(words), line
    with contextlib.chdir(place):
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}"
        if file:
            Path(file).write_text(done.stdout)
    return done.stdout
