"""Populations of cells: where they are, and which voxels they fill."""
