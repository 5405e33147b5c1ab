"""Specs to start from: a commented template, and the experiments of `pipelines/`, to which `experiments/` links.

A wheel contains the linked files.
"""

from __future__ import annotations

import difflib
from importlib.resources import files

from simexm.errors import SpecError


def experiments() -> dict[str, str]:
    """Names of the experiments with their descriptions, the first line of each file."""
    found = sorted(files("simexm.templates").joinpath("experiments").iterdir(), key=lambda path: path.name)
    texts = {path.name.removesuffix(".yaml"): path.read_text(encoding="utf-8") for path in found}
    return {name: text.splitlines()[0].removeprefix("# ") for name, text in texts.items()}


def sweep_text() -> str:
    """Return commented settings of a sweep, YAML."""
    return files("simexm.templates").joinpath("sweep.yaml").read_text(encoding="utf-8")


def spec_text(name: str | None = None) -> str:
    """Return the commented YAML of an experiment, by default of the template; raises SpecError for an unknown name."""
    folder = files("simexm.templates")
    if name is None:
        return folder.joinpath("new.yaml").read_text(encoding="utf-8")
    known = list(experiments())
    if name not in known:
        near = difflib.get_close_matches(name.casefold(), known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the experiments are {', '.join(known)}."
        raise SpecError(f"there is no experiment {name!r}; {hint} Type `simexm new --list` to see what each is")
    return folder.joinpath("experiments", f"{name}.yaml").read_text(encoding="utf-8")
