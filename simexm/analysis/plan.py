"""The plan of an analysis, worked out before anything runs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from simexm.analysis.contract import Analysis, Bench
from simexm.analysis.grid import volumes_of
from simexm.analysis.installed import package_version
from simexm.errors import SpecError
from simexm.planning.memory import BASE
from simexm.planning.outputs import Volumes
from simexm.units import GiB
from simexm.version import FORMAT_VERSION, RESULTS_VERSION

WRITTEN = 2
"""Copies of a block's images and label images in memory while they are written: coarse levels and encoded chunks."""
_LIBRARIES = ("simexm", "numpy", "scipy", "numba")


@dataclass(frozen=True)
class AnalysisMemory:
    """Predicted memory of an idle worker and of each concurrent block, bytes; see `simexm.run.backend.WorkerMemory`."""

    one_block: int
    base: int = BASE

    @property
    def total(self) -> int:
        """Peak of a worker."""
        return self.at_once(1)

    def at_once(self, blocks: int) -> int:
        """Peak of a process that measures so many blocks at once."""
        return self.base + blocks * self.one_block


@dataclass(frozen=True)
class AnalysisPlan:
    """An analysis with its inputs, and these opened as a bench."""

    analysis: Analysis
    inputs: tuple[Any, ...]
    bench: Bench

    @classmethod
    def of(cls, analysis: Analysis, inputs: tuple[Any, ...]) -> AnalysisPlan:
        """Open the inputs and plan; raises OutputError if they cannot be analysed, SpecError for wrong declarations."""
        plan = cls(analysis, inputs, analysis.open(inputs))
        bench = plan.bench
        if bench.grid is not None and bench.blocks != len(bench.grid.blocks):
            raise SpecError(
                f"the analysis {analysis.tag!r} declares {bench.blocks} blocks, and its grid has {len(bench.grid.blocks)}; "
                "update its package"
            )
        return plan

    @cached_property
    def volumes(self) -> Volumes:
        """The images and label images to write."""
        return volumes_of(self.analysis.tag, self.bench.grid, self.bench.products)

    @property
    def row_tables(self) -> list[str]:
        """Names of the tables whose rows are stored block by block."""
        return [p.name for p in self.bench.products if p.kind == "table"]

    @property
    def blocks(self) -> range:
        """Numbers of the blocks."""
        return range(self.bench.blocks)

    @property
    def core_seconds(self) -> float:
        """Rough work of all blocks."""
        return self.bench.core_seconds

    @property
    def memory(self) -> AnalysisMemory:
        """Predicted memory of a worker."""
        grid = self.bench.grid
        written = 0
        if grid is not None:
            pixels = math.prod(grid.storage[0].shard)
            each = (np.dtype(o.dtype).itemsize * len(o.leads) for o in self.volumes.outputs)
            written = WRITTEN * pixels * sum(each)
        return AnalysisMemory(self.bench.block_bytes + written)

    @property
    def device(self) -> str:
        """Where blocks are measured."""
        return "cpu"

    def smaller(self, nbytes: int) -> str:
        """What to do if a worker has only so many bytes: the largest blocks that fit, where a setting says how large they are."""
        if self.bench.remedy:
            return self.bench.remedy
        side = getattr(self.analysis, "block_voxels", 0) // 2
        while side:
            try:
                kind, settings = type(self.analysis), self.analysis.model_dump()
                found = AnalysisPlan.of(kind.model_validate({**settings, "block_voxels": side}), self.inputs)
            except ValueError:  # fewer than the least
                break
            if found.memory.total <= nbytes:
                return f"set block_voxels to {side}, which takes {found.memory.total / GiB:.2f} GiB"
            side //= 2
        return f"run it where a worker has {self.memory.total / GiB:.2f} GiB, since the blocks are as large as its settings say"

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """Versions of simexm and of the libraries and packages that decide the results."""
        versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
        return {**versions, "results": str(RESULTS_VERSION), **package_version(self.analysis)}

    @cached_property
    def hash(self) -> str:
        """Parameter hash, which decides every result."""
        plan = self.to_mapping(hashed=False)
        decisive = {key: plan[key] for key in ("kind", "inputs", "settings", "versions")}
        return hashlib.blake2b(json.dumps(decisive, sort_keys=True).encode(), digest_size=16).hexdigest()

    def to_mapping(self, hashed: bool = True) -> dict[str, Any]:
        """The plan as plain data, for `plan.json`."""
        return {
            **({"hash": self.hash} if hashed else {}),
            "format": FORMAT_VERSION,
            "kind": self.analysis.tag,
            "inputs": dict(self.bench.inputs),
            "settings": self.analysis.model_dump(mode="json"),
            "versions": dict(self.versions),
            "blocks": {"count": self.bench.blocks, "levels": self.volumes.owned},
            "image": self.volumes.pyramid(),
            "outputs": [output.to_mapping() for output in self.volumes.outputs],
            "bytes_uncompressed": self.volumes.stored_bytes,
            "memory_per_worker_bytes": self.memory.total,
            "core_seconds": round(self.core_seconds, 1),
        }
