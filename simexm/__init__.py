"""Simulate expansion microscopy of segmented electron-microscopy volumes.

>>> from simexm import Simulation
>>> Simulation.load("my.yaml").run("out.zarr")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simexm import caches
from simexm.systems import refuse_windows

if TYPE_CHECKING:
    from simexm.arrays import Simulated, simulate
    from simexm.engine.clusters import cluster
    from simexm.result import Result
    from simexm.simulation import Simulation
    from simexm.sources.ingest import ingest

__version__ = "0.1.0"

refuse_windows()
caches.settle()

_HOMES = {
    "Simulation": "simexm.simulation",
    "Result": "simexm.result",
    "Simulated": "simexm.arrays",
    "simulate": "simexm.arrays",
    "cluster": "simexm.engine.clusters",
    "ingest": "simexm.sources.ingest",
}

__all__ = ["Result", "Simulated", "Simulation", "__version__", "cluster", "ingest", "simulate"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import simexm` itself costs nothing."""
    if name in _HOMES:
        import importlib
        import warnings

        from simexm.errors import SimexmWarning

        for text in caches.untold():
            warnings.warn(text, SimexmWarning, stacklevel=2)
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'simexm' has no attribute {name!r}")
