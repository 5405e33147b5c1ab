"""The command line in terminals, pipes, files and scripts: colours, silence, log files, exit codes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.build import confocal, spec
from tests.cli.terminal import COLOUR, Terminal, environment, simexm

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d \S.*")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with a spec that is run in a second or two, one that warns, and the first one's result; what was printed."""
    place = tmp_path_factory.mktemp("terminal")
    phantom = {"kind": "phantom", "shape": [24, 32, 32], "voxel_size_nm": [40, 32, 32]}
    good = spec(optics=confocal(axial_range_um=None)) | {"source": phantom}
    (place / "good.yaml").write_text(yaml.safe_dump(good))
    warns = spec(optics=confocal(refractive_index=1.5, axial_range_um=None)) | {"source": phantom}
    (place / "warns.yaml").write_text(yaml.safe_dump(warns))
    done = piped(place, "run", "good.yaml", "--log-file", "first.log")
    assert done.returncode == 0, done.stderr
    return place, done


@pytest.fixture
def folder(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    """The folder of `ran`."""
    return ran[0]


def piped(folder: Path, *words: object, **changes: str) -> subprocess.CompletedProcess[str]:
    """Type a line whose output goes into pipes."""
    return subprocess.run(
        simexm(*words), cwd=folder, env=environment(**changes), capture_output=True, text=True, timeout=120, check=False
    )


LINES = [
    (("--help",), 0),
    (("plan", "warns.yaml"), 0),
    (("info", "good.zarr"), 0),
    (("plan", "nothing.yaml"), 2),
    (("rnu",), 2),
]
COLOURED = {("--help",), ("plan", "warns.yaml"), ("plan", "nothing.yaml"), ("rnu",)}


@pytest.mark.parametrize(
    ("words", "code"),
    [pytest.param(*line, marks=[pytest.mark.slow] * (line[0][0] in ("info", "plan"))) for line in LINES],
    ids=lambda v: "-".join(v) if isinstance(v, tuple) else None,
)
def test_colours_on_a_terminal_alone(words: tuple[str, ...], code: int, folder: Path) -> None:
    """There, and none with NO_COLOR; in a pipe not a single code."""
    with Terminal(simexm(*words), folder) as terminal:
        ended, shown = terminal.all()
    assert ended == code
    assert bool(COLOUR.search(shown)) == (words in COLOURED)
    with Terminal(simexm(*words), folder, NO_COLOR="1") as terminal:
        ended, plain = terminal.all()
    assert ended == code
    assert not COLOUR.search(plain)
    done = piped(folder, *words)
    assert done.returncode == code
    assert "\x1b" not in done.stdout + done.stderr
    assert (done.stdout == "") == (code == 2)


def test_a_bar_on_a_terminal_and_lines_in_a_pipe(
    folder: Path, ran: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    with Terminal(simexm("run", "good.yaml", "-o", "bar.zarr"), folder, NO_COLOR="1") as terminal:
        code, shown = terminal.all()
    assert code == 0
    assert "blocks" in shown
    assert "\x1b[?25l" in shown, "the cursor is hidden while the bar moves"
    assert not COLOUR.search(shown)
    done = ran[1]
    assert "finished: " in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[0].startswith("good.zarr: 1 x ")


@pytest.mark.slow
def test_quiet_is_silent_but_for_warnings_and_errors(folder: Path) -> None:
    """On a terminal; see the test below for pipes."""
    with Terminal(simexm("run", "good.yaml", "-q", "-o", "quiet.zarr"), folder) as terminal:
        assert terminal.all() == (0, "")


def test_log_file_has_the_lines_of_the_run_and_its_errors(folder: Path) -> None:
    """What was typed, the lines of log.txt, warnings and errors, each with its time; a second run adds to it."""
    first = (folder / "first.log").read_text().splitlines()
    assert all(LINE.fullmatch(line) for line in first)
    assert first[0].endswith(": simexm run good.yaml --log-file first.log")
    events = [line.partition(" ")[2] for line in (folder / "good.run" / "log.txt").read_text().splitlines()]
    assert [line.partition(" ")[2] for line in first[1:]] == events
    assert events[-1].startswith("finished: ")
    log = folder / "more.log"
    log.write_text("what was there before\n")
    done = piped(folder, "run", "warns.yaml", "-q", "--log-file", log)
    assert (done.returncode, done.stdout) == (0, "")
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines()), "quiet but for warnings"
    assert "refractive_index" in done.stderr
    done = piped(folder, "run", "good.yaml", "-q", "-o", "warns.zarr", "--log-file", log)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: "), "and errors"
    text = log.read_text()
    assert text.startswith("what was there before\n")
    assert " warning: " in text
    assert f" {done.stderr.strip()}" in text
    assert text.count(" simexm 0.") == 2


def test_log_file_that_cannot_be_written_is_reported_before_any_work(folder: Path) -> None:
    done = piped(folder, "run", "good.yaml", "-o", "none.zarr", "--log-file", "no/such/folder.log")
    assert done.returncode == 2
    assert "error: the log file no/such/folder.log cannot be written" in done.stderr
    assert not (folder / "none.zarr").exists()


def test_exit_codes_are_those_of_the_help(folder: Path) -> None:
    """1 and 143 of real processes here and below, 0 and 2 in the tests above, 130 in tests/run."""
    told = " ".join(piped(folder, "--help").stdout.split())
    for code in ("0 done", "1 begun and not finished", "2 what was typed", "130 interrupted", "143 ended by SIGTERM"):
        assert code in told
    for kind in ("zarr", "run"):
        shutil.copytree(folder / f"good.{kind}", folder / f"damaged.{kind}")
    shard = next(p for p in (folder / "damaged.zarr").rglob("c/*/*/*/*") if p.is_file())
    shard.write_bytes(b"torn" + shard.read_bytes()[4:])
    done = piped(folder, "verify", "damaged.zarr", "--log-file", "verify.log")
    assert done.returncode == 1
    assert " warning: damaged: " in (folder / "verify.log").read_text()


def test_sigterm_exits_with_143(folder: Path) -> None:
    """Sent while blocks are made; and what the log file says of it."""
    large = yaml.safe_load((folder / "good.yaml").read_text())
    large["source"]["shape"] = [60, 160, 160]
    large["execution"] = {"min_blocks": 64}  # of which the first are soon done
    (folder / "stopped.yaml").write_text(yaml.safe_dump(large))
    process = subprocess.Popen(
        simexm("run", "stopped.yaml", "-q", "--workers", 1, "--log-file", "stopped.log"), cwd=folder, text=True,
        env=environment(), stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((folder / "stopped.run").glob("journal/*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors.splitlines()[-1].startswith("interrupted; ")
    assert " error: interrupted; " in (folder / "stopped.log").read_text()


def test_broken_pipe_is_no_fault(folder: Path) -> None:
    """`simexm schema | head -1` ends silently."""
    line = f"{' '.join(simexm('schema'))} | head -c 10"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout == '{\n  "$defs'
    assert "Traceback" not in done.stderr
    assert os.sep not in done.stderr
