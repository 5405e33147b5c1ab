"""The command line: parse, call, render."""

from simexm.cli import streams

streams.occupy()

from simexm.cli import analyses, experiments, integrity, jobs, looks, pages, volumes  # noqa: E402 (they import libraries)
from simexm.cli.app import app, main  # noqa: E402

__all__ = ["analyses", "app", "experiments", "integrity", "jobs", "looks", "main", "pages", "volumes"]
