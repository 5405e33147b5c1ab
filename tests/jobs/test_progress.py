"""What a person is told."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from simexm.jobs.events import (
    BlockDone,
    BlockFailed,
    Event,
    Failure,
    Message,
    Retried,
    RunFinished,
    RunStarted,
    WorkerLost,
)
from simexm.jobs.progress import FailedFile, LogFile, progress

FAILURE = Failure(3, "ValueError: [bold]bad[/bold]", "Traceback ...\n", 3, "node7")
RUN: list[Event] = [
    RunStarted(2, 2, "http://127.0.0.1:8787/status"),
    *(BlockDone(block, 1, {}, "node7", 0.1) for block in range(3)),
    Retried(3, 1, "ValueError: bad", "node7"),
    WorkerLost("tcp://node7:1", (3,)),
    BlockFailed(FAILURE),
    RunFinished(3, 1, 61.0, complete=True),
]


def shown(*events: Event, terminal: bool, quiet: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    with progress(total=8, voxels=8_000_000, already_done=4, console=console, quiet=quiet) as listener:
        for event in events:
            listener(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_bar_counts_blocks_speed_time_and_shows_the_dashboard() -> None:
    text = shown(*RUN, terminal=True)
    assert "7/8 blocks" in text
    assert "Mvoxel/s" in text
    assert "left" in text
    assert "1 retried, 1 failed" in text
    assert "http://127.0.0.1:8787/status" in text


def test_plain_lines_say_what_happened_and_never_a_control_character() -> None:
    text = shown(*RUN, terminal=False)
    assert "\x1b" not in text
    assert text.splitlines()[0] == "running on 2 workers with 2 threads"  # the address is for the user's eyes alone
    assert "block 3 set aside after 3 attempts: ValueError: [bold]bad[/bold]" in text
    assert text.splitlines()[-1] == "finished: 3 blocks done in 61 s, 1 block failed"


def test_quiet_tells_of_failures_only() -> None:
    assert shown(*RUN[:5], RUN[-1], terminal=True, quiet=True) == ""
    assert "set aside" in shown(*RUN, terminal=False, quiet=True)
    assert "look" in shown(Message("look"), terminal=False, quiet=True)


def test_log_is_appended_with_times_and_tracebacks(tmp_path: Path) -> None:
    for _ in range(2):
        log = LogFile(tmp_path / "log.txt")
        for event in RUN:
            log(event)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) == 2 * 6
    assert not any("8787" in line for line in lines)  # others may read it, and the dashboard's address is a password
    assert lines[0][:4].isdigit()
    assert lines[4] == "Traceback ..."


def test_failed_file_exists_only_while_blocks_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "failed.jsonl"
    failed = FailedFile(path)
    for event in RUN:
        failed(event)
    (line,) = path.read_text().splitlines()
    assert json.loads(line) == {
        "block": 3,
        "error": "ValueError: [bold]bad[/bold]",
        "traceback": "Traceback ...\n",
        "attempts": 3,
        "host": "node7",
    }
    for event in (RUN[0], RunFinished(1, 0, 1.0, complete=True)):
        failed(event)
    assert not path.exists()
