"""The version of the package, and those of what it computes and of what it writes."""

__version__ = "0.1.0"

RESULTS_VERSION = 1
"""Part of every parameter hash. Raised by one with each change of the bytes of any result: between two releases the package's
own version stays, and without this a resumed run would mix blocks of the old bytes with blocks of the new ones."""

FORMAT_VERSION = 1
"""Of the files in OUT.run and of the attributes of OUT.zarr. Raised by one when a run could no longer go on with, or repair,
what an earlier simexm left there."""
