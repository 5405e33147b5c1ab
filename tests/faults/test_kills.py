"""Drivers and workers killed at random moments, over and over: the bytes stay, no process is left, nor any scratch."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from simexm.result.place import Place
from simexm.result.result import Result
from tests.faults.faults import ROOT, all_bytes, simulation, wait_until

THREADS, DRIVER, WORKER, BOTH, NOTHING = "driver in threads", "driver", "worker", "driver and worker", "nothing"
LONGEST_S = {THREADS: 2.5, DRIVER: 5.0, WORKER: 5.0, BOTH: 5.0}
"""From the moment when the run holds its lock, or has workers, on; a run that is done before then is one that nobody killed."""


class Loop:
    """One run after the other, each killed at a random moment and typed again, until it is complete; then a new output."""

    def __init__(self, folder: Path, want: dict[str, object], seed: int) -> None:
        self.folder, self.want = folder, want
        self.random = random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.complete = self.cut = 0
        self._take_new_output()

    def _take_new_output(self) -> None:
        self.output = self.folder / str(self.complete) / "small.zarr"
        self.output.parent.mkdir()
        simulation().save(self.output.parent / "small.yaml")

    def round(self, kind: str) -> None:
        """Start a run, kill what `kind` says at a random moment, and look at what is left."""
        words = [sys.executable, "-W", "ignore", "-m", "simexm.cli", "run", str(self.output.parent / "small.yaml")]
        words += ["--output", str(self.output), "--quiet", *([] if kind in (THREADS, NOTHING) else ["--workers", "2"])]
        log = self.folder / "log.txt"
        with log.open("w") as told:
            driver = subprocess.Popen(words, cwd=ROOT, stderr=told, start_new_session=True)
        wait_until(lambda: driver.poll() is not None or self._has_begun(kind, driver.pid))
        end_s = time.monotonic() + self.random.uniform(0, LONGEST_S.get(kind, 0))
        while kind != NOTHING and time.monotonic() < end_s and driver.poll() is None:
            time.sleep(0.005)
        if kind != NOTHING and driver.poll() is None:
            self.killed[kind] += self._kill(kind, driver)
        code = driver.wait(timeout=120)
        # workers whose driver is gone end by themselves
        wait_until(lambda: not self._left(driver.pid), seconds=30)
        if code == -signal.SIGKILL:
            mark = Place(self.output).mark()
            self.cut += mark is not None and mark["status"] == "incomplete"
        else:
            assert code == 0, log.read_text()
            self.check()

    def _has_begun(self, kind: str, driver: int) -> bool:
        if kind in (WORKER, BOTH):
            return bool(self._workers(driver))
        return (self.output.parent / "small.run/lock").exists()

    def _workers(self, driver: int) -> list[psutil.Process]:
        return [p for p, words in self._left(driver) if "spawn_main" in words]

    def _kill(self, kind: str, driver: subprocess.Popen[bytes]) -> bool:
        """Whether there was something to kill."""
        victims = [driver.pid] if kind != WORKER else []
        if kind in (WORKER, BOTH):
            workers = self._workers(driver.pid)
            victims += [self.random.choice(workers).pid] if workers else []
        for victim in self.random.sample(victims, len(victims)):
            os.kill(victim, signal.SIGKILL)
        return bool(victims)

    def _left(self, session: int) -> list[tuple[psutil.Process, str]]:
        """Processes that the driver started, or their children, that are alive, and how they were called."""
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    os.getsid(process.pid) == session
                    and process.pid != session
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append((process, " ".join(process.cmdline())))
            except (ProcessLookupError, psutil.Error):
                continue
        return found

    def check(self) -> None:
        """A complete run is the undisturbed one, and nothing else lies about; the next begins anew."""
        result = Result.open(self.output)
        assert all_bytes(result) == self.want
        assert not (result.place.run / "scratch").exists()
        assert not (result.place.run / "lock").exists()
        assert not list(self.output.parent.rglob("*.partial"))
        self.complete += 1
        self._take_new_output()


def kill_loop(rounds: int, folder: Path) -> None:
    seed = int(os.environ.get("SIMEXM_TEST_SEED", random.randrange(1 << 32)))
    print(f"to repeat this, set SIMEXM_TEST_SEED={seed}")
    reference = simulation().run(folder / "reference" / "small.zarr", quiet=True)
    start_s = time.monotonic()
    loop = Loop(folder, all_bytes(reference), seed)
    kinds = [THREADS] * (rounds - 3 * (rounds // 10)) + [DRIVER, WORKER, BOTH] * (rounds // 10)
    for kind in loop.random.sample(kinds, rounds):
        loop.round(kind)
    if loop.output.with_suffix(".run").exists():  # what the last kill left is finished, too
        loop.round(NOTHING)
    print(
        f"{rounds} rounds in {time.monotonic() - start_s:.0f} s: killed {dict(loop.killed)}; {loop.cut} runs cut in the middle, "
        f"{loop.complete} complete"
    )
    assert loop.cut >= rounds // 4, "most kills came before or after the work: no test of anything"
    assert loop.complete >= 1
    assert loop.killed[WORKER] + loop.killed[BOTH] >= 1


@pytest.mark.slow
def test_killed_again_and_again(tmp_path: Path) -> None:
    kill_loop(12, tmp_path)


@pytest.mark.release
@pytest.mark.timeout(900)
def test_killed_fifty_times(tmp_path: Path) -> None:
    kill_loop(50, tmp_path)
