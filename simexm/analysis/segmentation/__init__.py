"""From an image of membranes to a segmentation: supervoxels, and their agglomeration."""
