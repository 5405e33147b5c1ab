"""Commands that turn images into segmentations, and these into wiring."""

from typing import TYPE_CHECKING

from simexm.cli.analyse import command_function
from simexm.cli.app import Heading, command

if TYPE_CHECKING:
    from simexm.analysis.contract import Analysis


def _segment() -> "type[Analysis]":
    from simexm.analysis.segmentation.segment import Segment  # late: it loads large libraries

    return Segment


def _agglomerate() -> "type[Analysis]":
    from simexm.analysis.segmentation.agglomerate import Agglomerate

    return Agglomerate


def _objects() -> "type[Analysis]":
    from simexm.analysis.objects.objects import Objects  # late: it loads large libraries

    return Objects


def _contacts() -> "type[Analysis]":
    from simexm.analysis.objects.contacts import Contacts

    return Contacts


def _overlaps() -> "type[Analysis]":
    from simexm.analysis.objects.overlaps import Overlaps

    return Overlaps


def _synapses() -> "type[Analysis]":
    from simexm.analysis.synapses.synapses import Synapses

    return Synapses


def _matrix() -> "type[Analysis]":
    from simexm.analysis.synapses.matrix import Matrix

    return Matrix


def _skeletons() -> "type[Analysis]":
    from simexm.analysis.skeletons.skeletons import Skeletons

    return Skeletons


command(
    Heading.WIRING,
    name="segment",
    help="""Cut an image of membranes into supervoxels by a watershed, the same in any blocks.

    Example: simexm segment image.zarr --output supervoxels.zarr
    """,
)(command_function("segment", _segment))
command(
    Heading.WIRING,
    name="agglomerate",
    help="""Merge supervoxels to segments: those between which the membrane is dark, or those of a table of edges.

    SUPERVOXELS, a result of `simexm segment` or any volume of ids; then boundaries=PATH, a probability map, or edges=PATH.

    Example: simexm agglomerate supervoxels.zarr --output segments.zarr
    """,
)(command_function("agglomerate", _agglomerate))
command(
    Heading.WIRING,
    name="objects",
    help="""Number the connected objects of a volume of ids, a mask or a probability map, and measure them.

    Example: simexm objects cells.zarr --output objects.zarr

    Example: simexm objects mito.tif --voxel-size 40 32 32 --output mito.zarr
    """,
)(command_function("objects", _objects))
command(
    Heading.WIRING,
    name="contacts",
    help="""Find where cells touch, or come closer than a gap in nm: areas, positions, normals, patches.

    Example: simexm contacts cells.zarr --output contacts.zarr
    """,
)(command_function("contacts", _contacts))
command(
    Heading.WIRING,
    name="overlaps",
    help="""Count the voxels that the ids of two volumes share, such as organelles and cells.

    Example: simexm overlaps mito.zarr cells.zarr --output overlaps.zarr
    """,
)(command_function("overlaps", _overlaps))
command(
    Heading.WIRING,
    name="synapses",
    help="""Find the synapses of cells: contacts at junctions, with direction, sign, and what lies on either side.

    CELLS, JUNCTIONS, then NAME=PATH of vesicles, presynaptic, postsynaptic, symmetric, asymmetric, compartment, cell_type,
    spine_heads or truth.

    Example: simexm synapses cells.zarr junctions.zarr vesicles=vesicles.zarr --output synapses.zarr
    """,
)(command_function("synapses", _synapses))
command(
    Heading.WIRING,
    name="matrix",
    help="""Count the synapses from each cell to each other; SYNAPSES, then NAME=PATH of merge or spine_heads.

    Example: simexm matrix synapses.zarr merge=fragments.csv --output matrix.zarr
    """,
)(command_function("matrix", _matrix))
command(
    Heading.WIRING,
    name="skeletons",
    help="""Trace a skeleton in each object of a volume of ids: trees along the middle with radii, lengths and branch points.

    Example: simexm skeletons cells.zarr --output skeletons.zarr
    """,
)(command_function("skeletons", _skeletons))
