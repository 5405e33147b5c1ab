"""Any volume of labels to OME-Zarr labels."""
