"""One interface: what means the same has the same name, short form, type and words in all commands, and in Python."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import typer.main
import yaml
from typer.testing import CliRunner, Result

from simexm import templates
from simexm.api import Simulation
from simexm.cli import app
from simexm.cli.app import Heading
from simexm.export.export import export
from simexm.ingestion.ingest import ingest
from simexm.sources import describe
from tests.build import spec
from tests.markdown import ROOT

GROUP: Any = typer.main.get_command(app)
OPTIONS = {
    name: {p.opts[0]: p for p in command.params if p.opts[0].startswith("--")}
    for name, command in GROUP.commands.items()
}
SHORT = {"--output": "-o", "--quiet": "-q", "--help": "-h"}
OF_THE_COMMAND = {"--output": "what is written", "--cluster": "whether it must be given", "--spec": "what for"}
"""Options whose words differ, and in what."""


def type_in(*words: object) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words])


def test_an_option_is_the_same_in_all_commands() -> None:
    first: dict[str, tuple[str, tuple[Any, ...]]] = {}
    for command, options in OPTIONS.items():
        for name, p in options.items():
            mine = (p.opts, p.is_flag, p.nargs, None if name in OF_THE_COMMAND else (p.help, p.metavar))
            other, theirs = first.setdefault(name, (command, mine))
            assert mine == theirs, f"{name} of {command} and {other}"
            assert p.opts[1:] == ([SHORT[name]] if name in SHORT else []), f"{command} {name}"


def test_what_writes_a_named_output_can_replace_it() -> None:
    for command, options in OPTIONS.items():
        assert ("--output" in options) == ("--overwrite" in options), command
        assert not {"--workers", "--cluster"} & options.keys() or {"--quiet", "--dry-run"} & options.keys(), command
        assert "--jobs" not in options or "--cluster" in options, command


def test_commands_stand_below_their_headings_in_order() -> None:
    text = type_in("--help").stdout
    used = [h for h in Heading if any(c.rich_help_panel == h.value for c in GROUP.commands.values())]
    places = [text.index(f"─ {h.value} ─") for h in used]
    assert places == sorted(places)
    for name, command in GROUP.commands.items():
        begin = text.index(f"─ {command.rich_help_panel} ─")
        assert f" {name} " in text[begin : text.index("╰", begin)]
    assert "─ Commands ─" not in text


@pytest.mark.parametrize(
    ("command", "function", "others"),
    [
        ("run", Simulation.run, {"jobs", "tile", "device", "seed", "model", "dry_run", "log_file", "show"}),
        ("ingest", ingest, {"voxel_size", "region", "field", "quiet"}),
        ("export", export, {"quiet", "round"}),
    ],
)
def test_options_are_arguments_in_python(command: str, function: Any, others: set[str]) -> None:
    """All but those that belong to the command line, or are chosen elsewhere."""
    names = {name.removeprefix("--").replace("-", "_").replace("8bit", "eight_bit") for name in OPTIONS[command]}
    assert names - {"help"} - others <= inspect.signature(function).parameters.keys()


def test_new_lists_and_writes_each_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = templates.experiments()
    assert list(known) == sorted(p.stem for p in (ROOT / "pipelines").glob("*.yaml"))
    listed = type_in("new", "--list").stdout
    for name, what in known.items():
        assert what[:40] in listed
        assert type_in("new", name).stdout == (ROOT / "pipelines" / f"{name}.yaml").read_text()
        assert type_in("new", name, "-o", f"{name}.yaml").exit_code == 0
        assert Simulation.load(f"{name}.yaml") == Simulation.load(ROOT / "pipelines" / f"{name}.yaml")
        assert "pipelines/" not in Path(f"{name}.yaml").read_text()


def test_new_refuses_what_it_does_not_know_and_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, told in (
        (["quikstart"], "quickstart"),
        (["zzz"], "brainbow"),
        (["-o", "my.json"], "--output my.yaml"),
        (["../new"], "no experiment"),
    ):
        done = type_in("new", *words)
        assert (done.exit_code, done.stdout) == (2, "")
        assert told in done.stderr
    assert not list(tmp_path.iterdir())
    assert type_in("new", "-o", "my.yaml").exit_code == 0
    assert Path("my.yaml").read_text() == type_in("new").stdout
    Path("my.yaml").write_text("mine")
    assert type_in("new", "-o", "my.yaml").exit_code == 2
    assert Path("my.yaml").read_text() == "mine"
    assert type_in("new", "-o", "my.yaml", "--overwrite").exit_code == 0


def test_info_describes_a_label_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", np.arange(1, 41, dtype="u2").reshape(2, 4, 5))
    dry = type_in("ingest", "a.tif", "-o", "a.zarr", "--voxel-size", 40, 32, 32, "--roi", "1:,1:,:2", "--dry-run")
    assert dry.exit_code == 0
    assert "1 x 3 x 2 voxels of 40 x 32 x 32 nm" in dry.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
    assert type_in("ingest", "a.tif", "-o", "a.zarr", "--voxel-size", 40, 32, 32, "--roi", "1:,1:,:2").exit_code == 0
    assert type_in("ingest", "a.tif", "-o", "a.zarr", "--voxel-size", 40, 32, 32, "--dry-run").exit_code == 2
    for name, voxels in (("a.tif", "2 x 4 x 5"), ("a.zarr", "1 x 3 x 2")):
        assert json.loads(type_in("info", name, "--json").stdout) == json.loads(json.dumps(describe(name)))
        assert f"{voxels} (z, y, x), uint16" in type_in("info", name).stdout


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("preview", "my.yaml"), "a.png"),
        (("fluorophores", "ATTO488"), "a.png"),
        (("report", "out.zarr"), "a.html"),
        (("convert", "old.ini"), "a.yaml"),
    ],
    ids=lambda value: value[0],
)
def test_a_file_that_is_there_is_kept(
    words: tuple[str, ...], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before the input is read."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("mine")
    done = type_in(*words, "-o", name)
    assert done.exit_code == 2
    assert f"{name} " in done.stderr
    assert "--overwrite" in done.stderr
    assert Path(name).read_text() == "mine"


def test_a_dry_run_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints the plan, or the job scripts of a cluster, and refuses what the run would refuse."""
    monkeypatch.chdir(tmp_path)
    phantom = {"kind": "phantom", "shape": [24, 32, 32], "voxel_size_nm": [40, 32, 32]}
    Path("my.yaml").write_text(yaml.safe_dump(spec() | {"source": phantom}))
    cluster = {"kind": "slurm", "walltime": "01:00:00", "memory_per_worker": "2 GiB"}
    Path("queue.yaml").write_text(yaml.safe_dump(cluster))
    there = {p.name for p in tmp_path.iterdir()}
    told = type_in("run", "my.yaml", "--dry-run")
    assert (told.exit_code, told.stdout) == (0, type_in("plan", "my.yaml").stdout)
    told = type_in("run", "my.yaml", "--dry-run", "--cluster", "queue.yaml")
    assert told.exit_code == 0
    assert told.stdout.startswith("#!")
    assert {p.name for p in tmp_path.iterdir()} == there
    Path("my.zarr").write_text("mine")
    told = type_in("run", "my.yaml", "--dry-run")
    assert (told.exit_code, told.stdout) == (2, "")
    Path("old.ini").write_text("")
    told = type_in("run", "old.ini", "--dry-run")
    assert told.exit_code == 2
    assert "simexm convert old.ini -o old.yaml" in told.stderr
