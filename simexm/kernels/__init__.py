"""Numerical kernels: arrays in, arrays out, without Dask, Zarr or pydantic."""
