"""Simulate expansion microscopy of segmented electron-microscopy volumes.

>>> from simexm import Simulation
>>> Simulation.load("my.yaml").run("out.zarr")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simexm import caches
from simexm.systems import refuse_windows
from simexm.version import __version__

if TYPE_CHECKING:
    from simexm.analysis.registration.in_memory import align
    from simexm.api import Simulation
    from simexm.ingestion.ingest import ingest
    from simexm.jobs.clusters import cluster
    from simexm.result.result import Result
    from simexm.run.in_memory import Simulated, simulate


refuse_windows()
caches.redirect_unwritable()

_HOMES = {
    "align": "simexm.analysis.registration.in_memory",
    "Simulation": "simexm.api",
    "Result": "simexm.api",
    "Simulated": "simexm.run.in_memory",
    "simulate": "simexm.run.in_memory",
    "cluster": "simexm.jobs.clusters",
    "ingest": "simexm.ingestion.ingest",
}

__all__ = ["Result", "Simulated", "Simulation", "__version__", "align", "cluster", "ingest", "simulate"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import simexm` itself is fast."""
    if name in _HOMES:
        import importlib
        import warnings

        from simexm.errors import SimexmWarning

        for text in caches.pending_warnings():
            warnings.warn(text, SimexmWarning, stacklevel=2)
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'simexm' has no attribute {name!r}")
