"""Labels in OME-Zarr and in other Zarr arrays."""
