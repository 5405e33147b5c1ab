"""The examples in the help of each command are lines that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from simexm.cli import app
from tests.markdown import blocks, pages

GROUP: Any = typer.main.get_command(app)
EXAMPLES = [
    (name, line)
    for name, command in GROUP.commands.items()
    for line in re.findall(r"Example: simexm (.+)", command.help)
]
IN_PAGES = [
    (line.removeprefix("simexm ").partition(" #")[0].rstrip())
    for page in pages()
    for each in blocks(page)
    for line in each.text.splitlines()
    if each.kind == "bash" and re.match("simexm [a-z]", line)
]


def parse(line: str) -> Any:
    """The context in which the command of a line would run."""
    words = shlex.split(re.split(r" \|| >| &&", line)[0])
    with GROUP.make_context("simexm", words[:1]) as context:
        name, command, rest = GROUP.resolve_command(context, words)
        return command.make_context(name, rest, parent=context)


def test_every_command_has_one() -> None:
    assert {name for name, _ in EXAMPLES} == set(GROUP.commands)


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_an_example_is_taken(name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(line).info_name == name


@pytest.mark.parametrize("line", IN_PAGES)
def test_a_line_of_a_page_is_taken(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs them: those that a slow test runs, or a queue, too."""
    monkeypatch.chdir(tmp_path)
    assert parse(line).info_name == line.split()[0]


@pytest.mark.parametrize("line", ["run my.yaml --worker", "plan", "export out.zarr -o files --format pdf", "nothing"])
def test_a_wrong_line_is_not_taken(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|missing|invalid|not one of|requires"):
        parse(line)


def test_every_option_is_explained() -> None:
    bare = [f"{n} {p.name}" for n, c in GROUP.commands.items() for p in c.params if not getattr(p, "help", None)]
    assert bare == []
