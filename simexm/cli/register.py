"""Commands that register volumes: align, apply."""

from typing import TYPE_CHECKING

from simexm.cli.analyse import command_function
from simexm.cli.app import Heading, command

if TYPE_CHECKING:
    from simexm.analysis.contract import Analysis


def _align() -> "type[Analysis]":
    from simexm.analysis.registration.align import Align  # late: it loads large libraries

    return Align


def _apply() -> "type[Analysis]":
    from simexm.analysis.registration.apply import Apply

    return Apply


command(
    Heading.REGISTER,
    name="align",
    help="""Find the transform between two volumes, FIXED and MOVING, and store it with the aligned image.

    Example: simexm align round1.zarr round2.zarr --output aligned.zarr
    """,
)(command_function("align", _align))

command(
    Heading.REGISTER,
    name="apply",
    help="""Bring a volume or a table of points to the fixed side of transforms: TRANSFORM... VOLUME.

    Example: simexm apply aligned.zarr cells.zarr --output cells-aligned.zarr
    """,
)(command_function("apply", _apply))
