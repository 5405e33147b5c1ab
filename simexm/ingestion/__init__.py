"""Any source of labels to OME-Zarr."""
