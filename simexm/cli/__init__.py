"""The command line: parse, call, render."""

from simexm.cli import experiments, integrity, looks, volumes
from simexm.cli.app import app, main

__all__ = ["app", "experiments", "integrity", "looks", "main", "volumes"]
