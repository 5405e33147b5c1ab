"""Detectors: from light to counts."""
