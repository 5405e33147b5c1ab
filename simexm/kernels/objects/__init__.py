"""Components, contacts, overlaps and shapes of labelled voxels, computed on runs along x."""
