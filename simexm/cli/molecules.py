"""Commands that read molecules from images: decode."""

from typing import TYPE_CHECKING

from simexm.cli.analyse import command_function
from simexm.cli.app import Heading, command

if TYPE_CHECKING:
    from simexm.analysis.contract import Analysis


def _decode() -> "type[Analysis]":
    from simexm.analysis.barcodes.decode import Decode  # late: it loads large libraries

    return Decode


command(
    Heading.MOLECULES,
    name="decode",
    help="""Read the barcodes of cells from the images of all rounds, and compare them with the truth.

    Example: simexm decode rolonies.zarr --output decoded.zarr
    """,
)(command_function("decode", _decode))
