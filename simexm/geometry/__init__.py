"""Boxes, tilings, grids and transforms in exact arithmetic."""
