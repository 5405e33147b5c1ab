"""Write any source of labels as OME-Zarr."""
