"""What an analysis is: frozen settings that open stored volumes and tables, measure them block by block, and conclude.

The same object serves the command line (`--settings`), a sweep, and Python. An analysis of another package is found by its entry
point in the group `simexm.analyses`, under its tag; see `simexm.analysis.installed`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from simexm.analysis.grid import Grid
from simexm.jobs.sums_by_id import CellSums
from simexm.result.place import Place
from simexm.result.result import Result
from simexm.settings import Frozen
from simexm.stages.products import Product
from simexm.store.remote import Remote

if TYPE_CHECKING:
    import distributed
    import pyarrow as pa  # type: ignore[import-untyped]

    from simexm.analysis.plan import AnalysisPlan
    from simexm.jobs.clusters import Cluster


@dataclass(frozen=True)
class Score:
    """One number that says how good something is.

    Attributes
    ----------
    score
        Its name.
    value, unit
        The number, and its unit; "" where it has none.
    definition
        How it is computed, in one sentence.
    subset
        What it was computed for; "" for everything.
    """

    score: str
    value: float
    unit: str
    definition: str
    subset: str = ""


@dataclass(frozen=True)
class Conclusion:
    """What an analysis found.

    Attributes
    ----------
    tables
        Tables by name.
    scores
        Numbers that sum it up.
    """

    tables: Mapping[str, pa.Table]
    scores: tuple[Score, ...] = ()


Measured = CellSums | NDArray[Any] | Mapping[str, NDArray[Any]]
"""What a block gives of one product, or of one table of sums."""


class Bench(ABC):
    """An analysis that has opened its inputs; made once in the driver, and once in each worker.

    Attributes
    ----------
    inputs
        Hash of each input's content, by what the input is called.
    blocks
        Number of blocks. It follows from the inputs and the settings alone.
    voxels
        Voxels or pixels of all blocks, for the speed that the progress bar shows.
    core_seconds
        Rough work of all blocks.
    block_bytes
        Predicted memory of a block, beside that of a worker without work.
    columns
        Columns of each table of sums, by its name.
    products
        Images and label images on `grid`, and tables whose rows are kept block by block (`merge="rows"`). The first image is
        the main one; those with `varies={"time"}` have an axis of time.
    grid
        Where images and label images lie. Its `blocks` are then the blocks of the analysis, of which there are `blocks`.
    """

    inputs: Mapping[str, str]
    blocks: int
    voxels: int
    core_seconds: float
    block_bytes: int
    columns: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    products: tuple[Product, ...] = ()
    grid: Grid | None = None

    @abstractmethod
    def measure(self, number: int) -> Mapping[str, Measured]:
        """Measure one block: a pure function of the inputs, the settings and the number.

        Returns
        -------
        Mapping[str, CellSums | ndarray | Mapping[str, ndarray]]
            For each table of sums, integers by id; they are added up over all blocks, exactly, in whatever order blocks are
            done. For each image, the block's pixels, ([t,] c, z, y, x); for each label image, ([t,] z, y, x). For each table of
            rows, the block's columns by name, (n,) each.
        """

    @abstractmethod
    def conclude(self, sums: Mapping[str, Iterable[CellSums]]) -> Conclusion:
        """Make tables and scores of the sums over all blocks.

        Parameters
        ----------
        sums
            For each table, shares of its ids one after the other, each of bounded size; they can be gone through once.
        """


class Analysis(Frozen, ABC):
    """Settings of an analysis. Subclasses give the field `analysis`, a literal that names the kind, and `open`."""

    @property
    def tag(self) -> str:
        """Name of the kind of analysis."""
        return str(type(self).model_fields["analysis"].default)

    @abstractmethod
    def open(self, inputs: tuple[Result, ...]) -> Bench:
        """Open the inputs.

        Raises
        ------
        OutputError
            If this analysis cannot be made of them.
        """

    def run(
        self,
        *inputs: Result | str | Path | Remote,
        output: str | Path | Remote,
        client: distributed.Client | None = None,
        cluster: Cluster | None = None,
        workers: int | None = None,
        overwrite: bool = False,
        quiet: bool = False,
    ) -> Result:
        """Analyse stored results, in parallel, and write what is found; an interrupted run is taken up again.

        Parameters
        ----------
        inputs
            Results, or where they are.
        output
            NAME.zarr; tables, scores and the journal go to NAME.run beside it.
        client, cluster, workers
            Who computes; see `Simulation.run`.
        overwrite
            Replace what simexm wrote there before.
        quiet
            Show failures only.

        Raises
        ------
        OutputError
            If the analysis cannot be made of these inputs, or the output is in the way.
        SpecError
            If a worker would have too little memory.
        RunError
            If blocks failed; the others are kept.
        """
        from simexm.analysis.run import run_analysis  # which loads large libraries

        return run_analysis(self, _opened(inputs), output, client, cluster, workers, overwrite=overwrite, quiet=quiet)

    def plan(
        self,
        *inputs: Result | str | Path | Remote,
        output: str | Path | Remote | None = None,
        overwrite: bool = False,
    ) -> AnalysisPlan:
        """Open the inputs and work out what `run` would do; nothing is computed.

        With `output`, what stands in its way is refused as `run` would refuse it.
        """
        from simexm.analysis.plan import AnalysisPlan
        from simexm.analysis.run import refuse

        plan = AnalysisPlan.of(self, _opened(inputs))
        if output is not None:
            refuse(plan, Place.at(output), overwrite)
        return plan


def _opened(inputs: tuple[Result | str | Path | Remote, ...]) -> tuple[Result, ...]:
    return tuple(one if isinstance(one, Result) else Result.open(one) for one in inputs)
