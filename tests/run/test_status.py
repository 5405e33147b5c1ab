"""`simexm status` while a run works, after it was killed, and when it is done."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simexm.api import Simulation
from simexm.cli import app
from tests.run.conftest import fingerprint, spec


def status(output: Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["status", str(output), "--json"])
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
def test_status_follows_a_run(stored: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    assert CliRunner().invoke(app, ["status", str(output)]).exit_code == 2
    simulation = Simulation.from_mapping(spec(stored)).with_tile((2, 12, 12))
    simulation.save(tmp_path / "my.yaml")
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "simexm.cli",
        "run",
        "my.yaml",
        "--workers",
        "2",
        "-o",
        output.name,
        "-q",
    ]
    with subprocess.Popen(words, cwd=tmp_path) as driver:
        while not (output.with_suffix(".run") / "plan.json").exists() or status(output)["left_s"] is None:
            assert driver.poll() is None
            time.sleep(0.1)
        before = fingerprint(output.with_suffix(".run") / "tables")
        told = status(output)
        assert told["driver"] == {"host": socket.gethostname(), "pid": driver.pid, "alive": True}
        assert told["blocks"] == 18
        assert 2 <= told["done"] <= 18
        assert told["left_s"] > 0
        assert not told["complete"]
        assert before.items() <= fingerprint(output.with_suffix(".run") / "tables").items()
        driver.kill()
    told = status(output)
    assert told["driver"]["alive"] is False
    assert told["left_s"] is None
    text = CliRunner().invoke(app, ["status", str(output)]).stdout
    assert "dead" in text
    assert f"{told['done']} of 18 blocks done" in text
    simulation.run(output, workers=2, quiet=True)
    told = status(output)
    assert (told["done"], told["complete"], told["driver"], told["left_s"]) == (18, True, None, None)
    assert "complete" in CliRunner().invoke(app, ["status", str(output)]).stdout
