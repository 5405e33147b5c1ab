"""Detectors: from photo-electrons to counts."""
