"""Boxes, tilings, grids, and transforms between tissue and image."""
