"""Versions of the package, of its results and of its files."""

__version__ = "0.1.0"

RESULTS_VERSION = 3
"""Part of every parameter hash; raised by one whenever the bytes of any result change. The package's version stays between
releases, so without this a resumed run would mix blocks of old and new bytes."""

FORMAT_VERSION = 1
"""Of the files in OUT.run and the attributes of OUT.zarr; raised by one when a run could no longer resume or repair the results
of an earlier simexm."""
