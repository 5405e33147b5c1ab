"""The public API: a simulation that can be planned, previewed and run.

Layers that do not import each other are joined here: plans and results get their HTML for notebooks, a finished run its preview.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simexm.geometry.grid import Triple
from simexm.machine import refuse_tight_shell
from simexm.planning.plan import Plan
from simexm.result.result import Result
from simexm.spec.simulation import Spec

if TYPE_CHECKING:
    import distributed

    from simexm.jobs.clusters import Cluster
    from simexm.sources.base import LabelSource
    from simexm.sweep.settings import Sweep
    from simexm.view.preview import Preview


class Simulation(Spec):
    """A simulated experiment: its specification (see `simexm.spec.simulation.Spec`), which can be planned, previewed and run."""

    def plan(self, *, until: str | None = None, source: LabelSource | None = None, gpu: bool | None = None) -> Plan:
        """Work out what a run would do, without computing anything.

        Parameters
        ----------
        until
            Stop after this stage.
        source
            Labels to use instead of the spec's own source.
        gpu
            Whether the workers have GPUs; by default, whether this machine has one.
        """
        refuse_tight_shell()
        from simexm.planning.planner import make_plan  # late: it loads large libraries

        return make_plan(self, until=until, source=source, gpu=gpu)

    def preview(
        self,
        *,
        at: Triple | None = None,
        shape: Triple | None = None,
        round: int | None = None,
        until: str | None = None,
    ) -> Preview:
        """Compute a part of the image in memory, with the pixels that a run would write.

        A notebook shows it as a picture; its `image` and `labels` are NumPy arrays.

        Parameters
        ----------
        at
            The pixel z, y, x in the middle; by default that of the image.
        shape
            Pixels along z, y, x; by default 24 planes of one tile or a few, at most 512 a side.
        round
            Round of imaging, from 1 on; by default the first.
        until
            Stop after this stage.
        """
        from simexm.view.preview import preview

        plan = self.plan(until=until)
        plan.warn()
        return preview(plan, at, shape, round)

    def run(
        self,
        output: str | Path,
        *,
        client: distributed.Client | None = None,
        cluster: Cluster | None = None,
        workers: int | None = None,
        until: str | None = None,
        overwrite: bool = False,
        quiet: bool = False,
        profile: bool = False,
    ) -> Result:
        """Run on a Dask cluster and write `output` (a folder NAME.zarr) with NAME.run beside it.

        Parameters
        ----------
        output
            Folder to write, or URL such as s3://bucket/out.zarr; an interrupted run there is resumed.
        client
            Dask cluster to use; by default one is started on this machine.
        cluster
            Cluster to start for this run; see `simexm.cluster`.
        workers
            Worker processes on this machine; by default one for each core.
        until
            Stop after this stage.
        overwrite
            Replace an earlier simexm result.
        quiet
            Show no progress.
        profile
            Measure what the blocks' time is spent on; `simexm.run.profile` reads it.

        Raises
        ------
        SimexmError
            See `simexm.errors`.
        """
        from simexm.run.driver import run
        from simexm.view.picture import keep_picture

        computer: dict[str, Any] = {"client": client, "cluster": cluster, "workers": workers}
        shown: dict[str, Any] = {"quiet": quiet, "profile": profile, "finished": keep_picture}
        return run(self, output, **computer, until=until, overwrite=overwrite, **shown)

    def sweep(
        self,
        settings: Sweep | Mapping[str, Any] | str | Path,
        output: str | Path,
        *,
        client: distributed.Client | None = None,
        cluster: Cluster | None = None,
        workers: int | None = None,
        overwrite: bool = False,
        quiet: bool = False,
    ) -> Result:
        """Simulate for many values of the settings, analyse each result, and collect the scores.

        `scores()` of what is returned has a row for each point, replicate and score; its table `points` has the costs.

        Parameters
        ----------
        settings
            What varies and what is measured; see `simexm.sweep.settings.Sweep`. Or its YAML file, or plain data.
        output
            Folder NAME.zarr; tables and points go to NAME.run beside it. An interrupted sweep there is resumed.
        client, cluster, workers, overwrite, quiet
            See `run`.

        Raises
        ------
        SpecError
            If any point is wrong; all problems are listed, and nothing was run.
        RunError
            If all points failed. If some did, the others go on, and a warning says which.
        """
        from simexm.sweep.run import run_sweep
        from simexm.sweep.settings import sweep_of

        computer: dict[str, Any] = {"client": client, "cluster": cluster, "workers": workers}
        return run_sweep(self, sweep_of(settings), output, **computer, overwrite=overwrite, quiet=quiet)

    def _repr_html_(self) -> str:
        from simexm.view.notebook import simulation_html

        return simulation_html(self)


def _plan_html(plan: Plan) -> str:
    from simexm.view.notebook import plan_html

    return plan_html(plan)


def _result_html(result: Result) -> str | None:
    from simexm.view.notebook import result_html

    return result_html(result)


Plan.shown = _plan_html
Result.shown = _result_html
