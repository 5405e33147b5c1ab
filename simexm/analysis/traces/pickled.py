"""Read the pickled arrays of Suite2p without running code: only NumPy's arrays, numbers and plain containers are rebuilt."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from simexm.errors import OutputError

_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (module, name)
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("_reconstruct", "scalar")
    ),
    *((module, "_frombuffer") for module in ("numpy.core.numeric", "numpy._core.numeric")),
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def read_objects(path: Path) -> Any:
    """Read an array of objects (.npy); raises OutputError if it would run anything but NumPy's own constructors."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
            shape, _, dtype = read(file)
            if not dtype.hasobject:
                return np.load(path, allow_pickle=False)
            return _Restricted(io.BytesIO(file.read())).load().reshape(shape)
    except (pickle.UnpicklingError, ValueError, KeyError, EOFError, AttributeError, TypeError) as error:
        raise OutputError(f"{path} is not what Suite2p writes: {error}; it is not read") from error
