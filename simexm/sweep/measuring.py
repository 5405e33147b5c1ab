"""What is measured on one point: analyses and programs, and their scores as rows."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import distributed

from simexm.analysis.contract import Analysis
from simexm.errors import OutputError, RunError
from simexm.result.result import Result
from simexm.sweep.settings import Measurement

_TOLD = 2000
"""Last characters of a failed program's output that its error repeats."""


def measured(
    name: str, what: Measurement, image: Path, spec: Path, out: Path, client: distributed.Client
) -> list[dict[str, Any]]:
    """Analyse a point, score what was found, and return the scores as rows.

    What is complete already is not computed again. Raises SimexmError or OSError if anything fails.
    """
    scores = out.with_suffix(".json")
    places = {"image": str(image), "out": str(out), "spec": str(spec), "scores": str(scores)}
    places["truth"] = what.truth.format(**places, truth="")
    analysis, score = what.chosen(), what.scored()
    if analysis is not None:
        found = _analysed(analysis, [text.format(**places) for text in what.inputs], out, client)
        if score is None:
            return _rows(name, found)
    else:
        assert what.command is not None
        scores.unlink(missing_ok=True)
        command = [word.format(**places) for word in shlex.split(what.command)]
        _finished(command)
        if score is None:
            return _own_scores(name, scores, command)
    scored = out.with_name(f"{out.stem}-score.zarr")
    return _rows(name, _analysed(score, [str(out), places["truth"]], scored, client))


def _analysed(analysis: Analysis, inputs: list[str], out: Path, client: distributed.Client) -> Result:
    plan = analysis.plan(*inputs)
    if out.exists():
        found = Result.open(out)
        if found.complete and found.provenance["hash"] == plan.hash:
            return found
    stale = out.exists() and Result.open(out).provenance["hash"] != plan.hash
    return analysis.run(*inputs, output=out, client=client, overwrite=stale, quiet=True)


def _finished(command: list[str]) -> None:
    """Run a program; raises RunError with the end of what it printed if it cannot be started or fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except OSError as error:
        raise RunError(
            f"the program {command[0]} cannot be started: {error.strerror}; write its path into the command"
        ) from None
    if done.returncode:
        told = done.stdout.decode(errors="replace").strip()[-_TOLD:] or "it printed nothing"
        raise RunError(f"`{shlex.join(command)}` ended with {done.returncode}: {told}")


def _own_scores(name: str, path: Path, command: list[str]) -> list[dict[str, Any]]:
    """Scores that a program wrote; raises OutputError unless they are numbers by name."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OutputError(
            f"`{shlex.join(command)}` wrote no {path}; let it write its scores to {{scores}}, JSON {{name: number}}, "
            "or name a `score:`"
        ) from None
    except ValueError as error:
        raise OutputError(f"{path} is not JSON ({error}); it should be {{name: number}}") from None
    if not isinstance(data, dict) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in data.values()
    ):
        raise OutputError(f"{path} should hold numbers by name, {{name: number}}")
    return [
        _row(name, {"score": str(key), "value": float(data[key]), "unit": "", "definition": "of the program"})
        for key in sorted(data)
    ]


def _rows(name: str, result: Result) -> list[dict[str, Any]]:
    return [_row(name, one) for one in result.scores().to_pylist()]


def _row(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    """A score as plain data; a value that is not a number is None, for JSON has no such numbers."""
    value = float(one["value"])
    return {
        "kind": name,
        "score": one["score"],
        "subset": one.get("subset", ""),
        "value": value if math.isfinite(value) else None,
        "unit": one["unit"],
        "definition": one["definition"],
    }
