"""A NumPy array in a file, NAME.npy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simexm.errors import SourceError
from simexm.sources.tiff.mapped import MappedStack, damaged, three_axes


def open_npy(path: Path) -> MappedStack:
    """Open a .npy file of axes z, y, x; it has no voxel size.

    Raises SourceError if it holds objects (nothing is unpickled) or records, does not have three axes, or is cut off.
    """
    try:
        with path.open("rb") as file:
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                np.lib.format.read_magic(file), np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(file)
            offset = file.tell()
    except Exception as error:  # NumPy parses the header as Python, which may fail in many ways
        raise damaged(path, str(error).splitlines()[0] if str(error) else "its header cannot be read") from error
    if dtype.hasobject or dtype.names is not None:
        kind = "Python objects" if dtype.hasobject else "records"
        raise SourceError(
            f"{path} holds {kind}, and ids are integers. Save the segmentation alone: "
            "numpy.save('ids.npy', ids.astype('uint64'))"
        )
    z, y, x = three_axes(str(path), shape)
    if fortran:  # the first axis runs fastest
        last = len(shape) - 1
        return MappedStack(path, dtype, shape[::-1], (last - z, last - y, last - x), offset)
    return MappedStack(path, dtype, shape, (z, y, x), offset)
