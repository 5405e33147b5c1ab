"""Standard streams that are full, closed or of few letters; log files that fill up; and names that no file can have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simexm.cli import app
from simexm.cli.logfile import _File
from simexm.errors import DiskError, SimexmWarning
from simexm.logs import logger
from simexm.store.atomic_file import atomic_file
from tests.build import simulation

COMMANDS = [["new"], ["--help"], ["--version"]]
needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full on this system")


def begin(*words: str, before: Callable[[], None] | None = None, **streams: object) -> subprocess.Popen[str]:
    """`simexm WORDS`, which is waited for later, since several start at once."""
    command = [sys.executable, "-m", "simexm.cli", *words]
    given: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen(command, text=True, preexec_fn=before, **given)  # type: ignore[call-overload, no-any-return]


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out or "", err or ""


def close(*numbers: int) -> Callable[[], None]:
    def act() -> None:
        for number in numbers:
            os.close(number)

    return act


@needs_dev_full
def test_output_that_finds_no_room_is_one_line_and_a_failure() -> None:
    """Where it is short, too, and fails only when it is flushed at the very end."""
    with open("/dev/full", "w") as full:
        for process in [begin(*words, stdout=full) for words in COMMANDS]:
            code, _, told = end(process)
            assert code == 1
            assert told.count("\n") == 1
            assert told.startswith("error: standard output cannot be written: No space left on device")


def test_a_reader_that_ends_is_no_error() -> None:
    """As `simexm new | head -1`: the exit code is that of other programs, and nothing is printed."""
    started = []
    for words in COMMANDS:
        reader, writer = os.pipe()
        os.close(reader)
        started.append(begin(*words, stdout=writer))
        os.close(writer)
    assert [end(process) for process in started] == [(141, "", "")] * len(COMMANDS)


def test_closed_streams_are_the_null_device(tmp_path: Path) -> None:
    """Files opened later do not get their numbers."""
    plain, quiet, mute, wrong = (
        begin("new"),
        begin("new", before=close(1)),
        begin("new", before=close(0, 2)),
        begin("info", str(tmp_path / "none.zarr"), before=close(0, 1, 2)),
    )
    text = end(plain)[1]
    assert end(quiet) == (0, "", "")
    assert end(mute) == (0, text, "")
    assert end(wrong) == (2, "", "")
    code = "import os, simexm.cli; print(sorted({os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)}), file=open('told', 'w'))"
    subprocess.run([sys.executable, "-c", code], preexec_fn=close(0, 1, 2), cwd=tmp_path, check=True)
    if sys.platform == "linux":
        assert (tmp_path / "told").read_text() == "['/dev/null']\n"


def test_terminals_of_few_letters_and_columns() -> None:
    few = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "1"}
    helped, wrong = begin("run", "--help", env=few), begin("info", "é.zarr", env=few)
    code, out, _ = end(helped)
    assert (code, out.isascii()) == (0, True)
    assert "Run a simulation" in out  # not one letter a line
    code, _, told = end(wrong)
    assert (code, told.count("\n")) == (2, 1)
    assert "does not exist; `simexm run SPEC" in told


@needs_dev_full
def test_a_log_file_without_room_is_refused_before_any_work(tmp_path: Path) -> None:
    simulation(source={"kind": "phantom", "shape": [8, 16, 16]}).save(tmp_path / "my.yaml")
    words = ["run", str(tmp_path / "my.yaml"), "--output", str(tmp_path / "out.zarr"), "--log-file", "/dev/full"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 2
    assert told.stderr.splitlines() == [
        (
            "error: the log file /dev/full cannot be written: No space left on device; name a file that you may write, "
            "on a disk with room"
        )
    ]
    assert not (tmp_path / "out.zarr").exists()


@needs_dev_full
def test_a_log_file_that_fills_up_later_is_given_up_with_one_warning() -> None:
    handler = _File("/dev/full")
    handler.begun = True
    logger.addHandler(handler)
    with pytest.warns(SimexmWarning, match=r"/dev/full cannot be written any more: No space left") as told:
        logger.critical("one")
    assert len(told) == 1
    logger.critical("two")  # a second warning would be an error here
    handler.close()


@needs_dev_full
def test_a_full_disk_is_reported_with_the_name_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "page.html.partial").symlink_to("/dev/full")
    with (
        pytest.raises(DiskError, match=r"page\.html cannot be written: No space left on device"),
        atomic_file(tmp_path / "page.html") as partial,
        partial.open("w") as file,
    ):
        file.write("x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x" * 251 + ".zarr", "too long for the name of a file"),
        ("loop.zarr", "form a circle"),
        ("a\0b.zarr", "cannot be the name of a file"),
        (os.fsdecode(b"\xe9.zarr"), r"b'\xe9.zarr' is not UTF-8"),
    ],
    ids=["too long", "a circle of links", "zero byte", "no UTF-8"],
)
def test_names_that_no_result_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.zarr").symlink_to("loop.zarr")
    simulation(source={"kind": "phantom", "shape": [8, 16, 16]}).save(tmp_path / "my.yaml")
    for words in (["info", name], ["run", "my.yaml", "--output", name]):
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 2, found.output
        assert told in found.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"loop.zarr", "my.yaml"}


def test_a_working_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    found = CliRunner().invoke(app, ["info", str(tmp_path / "out.zarr")])
    assert found.exit_code == 2
    assert "the working folder is gone" in found.stderr


def test_settings_of_dask_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    simulation(source={"kind": "phantom", "shape": [8, 16, 16]}).save(tmp_path / "my.yaml")
    (tmp_path / "broken.yaml").write_text("- no mapping\n")
    words = ["run", str(tmp_path / "my.yaml"), "--output", str(tmp_path / "out.zarr"), "--workers", "1"]
    code, _, told = end(begin(*words, env={**os.environ, "DASK_CONFIG": str(tmp_path)}))
    assert code == 2
    last = told.splitlines()[-1]
    assert last.startswith("error: Dask's own settings cannot be read: A dask config file at")
    assert str(tmp_path / "broken.yaml") in last
