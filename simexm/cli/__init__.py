"""The command line: parse, call, render."""

from simexm.cli import experiments, integrity, jobs, looks, pages, volumes
from simexm.cli.app import app, main

__all__ = ["app", "experiments", "integrity", "jobs", "looks", "main", "pages", "volumes"]
