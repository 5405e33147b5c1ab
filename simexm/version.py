"""The version of the package, and those of what it computes and of what it writes."""

__version__ = "0.1.0"

RESULTS_VERSION = 1
"""Part of every parameter hash. Raised by one with each change of the bytes of any result: between two releases the package's
own version stays, and without this a resumed run would mix blocks of the old bytes with blocks of the new ones."""
