"""The contract of an analysis: frozen settings that open stored volumes and tables, measure them by blocks, and conclude.

The same object serves the command line (`--settings`), a sweep, and Python. Analyses of other packages are found by their entry
points in the group `simexm.analyses`; see `simexm.analysis.installed`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from simexm.analysis.grid import Grid
from simexm.jobs.keyed_rows import Columns, Keyed, MergedRows
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
    """A measure of quality: `definition` says in a sentence how it is computed, `subset` for what ("" for everything)."""

    score: str
    value: float
    unit: str
    definition: str
    subset: str = ""


@dataclass(frozen=True)
class Conclusion:
    """The tables, by name, and scores of an analysis."""

    tables: Mapping[str, pa.Table | Iterator[pa.Table]]
    """A table, stored in one file; or its parts, one after the other, which are never in memory together: a folder of files."""
    scores: tuple[Score, ...] = ()
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Attributes of further groups of NAME.zarr, by path."""


Measured = CellSums | NDArray[Any] | Mapping[str, NDArray[Any]]
"""What a block measures for one product or one table of sums."""


Sums = Mapping[str, Iterable[CellSums] | MergedRows]
ReadPart = Callable[[str, int], Columns]
"""Returns the arrays of a survey of a block, by the survey's name and the block's number."""


class Bench(ABC):
    """An analysis with its inputs opened; built once in the driver and once in each worker."""

    inputs: Mapping[str, str]
    """Hash of each input's content, by the input's name."""
    blocks: int
    """Number of blocks, decided by the inputs and the settings alone."""
    voxels: int
    """Voxels or pixels of all blocks, for the speed in the progress bar."""
    core_seconds: float
    """Rough work of all blocks."""
    block_bytes: int
    """Predicted memory of a block, without that of an idle worker."""
    remedy: str = ""
    """What to type if a worker has too little memory for a block, such as a setting for smaller ones."""
    columns: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Columns of each table of sums, by its name."""
    keyed: Mapping[str, Keyed] = MappingProxyType({})
    """Further tables by one or several ids, of sums and extremes, by name."""
    surveys: tuple[str, ...] = ()
    """Names of the surveys that look at all blocks before any is measured, in their order; see `survey`."""
    kept: tuple[str, ...] = ()
    """Those whose findings `measure` reads, too; the files of the others are removed when all are joined."""
    parts: ReadPart
    """Reads what a kept survey found; set before the first block is measured."""
    joined: Mapping[str, NDArray[Any]] = MappingProxyType({})
    """What `join` found, memory-mapped; set before the first block is measured."""
    products: tuple[Product, ...] = ()
    """Images and label images on `grid`, and tables of rows stored block by block (`merge="rows"`). The first image is the main
    one; those with `varies={"time"}` have a time axis."""
    grid: Grid | None = None
    """Grid of images and label images, if any; its blocks are then those of the analysis."""

    def survey(self, name: str, number: int, read: ReadPart) -> Mapping[str, NDArray[Any]]:
        """Survey one block, as `measure`, but for small arrays, which later surveys and `join` read: `read(name, number)`."""
        raise NotImplementedError

    def join(self, read: ReadPart, folder: Path) -> None:
        """Join the surveys of all blocks in the driver: write arrays NAME.npy to `folder`, which `measure` finds in `joined`."""
        raise NotImplementedError

    @abstractmethod
    def measure(self, number: int) -> Mapping[str, Measured]:
        """Measure one block: a pure function of the inputs, the settings and the number.

        Returns
        -------
        Mapping[str, CellSums | ndarray | Mapping[str, ndarray]]
            For each table of sums, integers by id, which are added over all blocks exactly, in any order. For each image, the
            block's pixels, ([t,] c, z, y, x); for each label image, ([t,] z, y, x). For each table of rows and of `keyed`,
            its columns, (n,).
        """

    @abstractmethod
    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Compute tables and scores from the sums over all blocks (`Sums`).

        For each table of sums, `sums` iterates once over parts of its ids (`CellSums`), each of bounded size; for each of
        `keyed`, over columns by name, in ascending order of its keys, as often as wanted (`MergedRows`).
        """


class Analysis(Frozen, ABC):
    """Settings of an analysis. A subclass has the field `analysis`, a literal with its name, and the method `open`."""

    @property
    def tag(self) -> str:
        """Name of the analysis."""
        return str(type(self).model_fields["analysis"].default)

    @abstractmethod
    def open(self, inputs: tuple[Any, ...]) -> Bench:
        """Open the inputs, as `opened` returned them; raises OutputError if this analysis cannot read them."""

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open what a user gave, by default as results. What is returned is pickled, and has `places`, which are only read."""
        return tuple(one if isinstance(one, Result) else Result.open(one) for one in inputs)

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
        """Analyse stored results in parallel; an interrupted run is resumed.

        Parameters
        ----------
        inputs
            Results, or their paths or URLs.
        output
            NAME.zarr; tables, scores and the journal go to NAME.run beside it.
        client, cluster, workers
            See `Simulation.run`.
        overwrite
            Replace an earlier simexm result.
        quiet
            Show only failures.

        Raises
        ------
        OutputError
            If the inputs cannot be analysed, or the output exists and must not be replaced.
        SpecError
            If a worker would have too little memory.
        RunError
            If blocks failed; the others are kept.
        """
        from simexm.analysis.run import run_analysis  # late: it loads large libraries

        return run_analysis(
            self, self.opened(inputs), output, client, cluster, workers, overwrite=overwrite, quiet=quiet
        )

    def plan(
        self, *inputs: Result | str | Path | Remote, output: str | Path | Remote | None = None, overwrite: bool = False
    ) -> AnalysisPlan:
        """Open the inputs and plan `run` without computing anything; with `output`, check that it may be written."""
        from simexm.analysis.plan import AnalysisPlan
        from simexm.analysis.run import refuse

        plan = AnalysisPlan.of(self, self.opened(inputs))
        if output is not None:
            refuse(plan, Place.at(output), overwrite)
        return plan
