"""The command line: parse, call, render."""

from simexm.cli import experiments, looks, volumes
from simexm.cli.app import app, main

__all__ = ["app", "experiments", "looks", "main", "volumes"]
