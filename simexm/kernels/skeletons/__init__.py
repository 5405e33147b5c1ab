"""Skeletons of objects: distances to the surface, paths along the middle, trees of vertices."""
