"""Analyses by name, of simexm and of other packages; see `simexm.plugins`."""

from __future__ import annotations

from simexm import plugins
from simexm.analysis.contract import Analysis

GROUP = "simexm.analyses"


def names() -> tuple[str, ...]:
    """Names of all installed analyses."""
    return tuple(sorted(plugins.installed(GROUP)))


def load(name: str) -> type[Analysis]:
    """The class of an installed analysis; see `simexm.plugins.load` for what it raises."""
    return plugins.load(GROUP, name, Analysis, "analysis")


def package_version(analysis: Analysis) -> dict[str, str]:
    """Version of the package that brings an analysis; see `simexm.plugins.versions`."""
    return plugins.versions(GROUP, "analysis", (analysis,))
