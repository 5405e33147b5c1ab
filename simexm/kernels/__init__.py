"""Arrays in, arrays out: regions, dyes, diffraction, images, detectors. Imports neither Dask nor Zarr."""
