"""Volumes of labels to read from."""

from simexm.sources.describe import describe

__all__ = ["describe"]
