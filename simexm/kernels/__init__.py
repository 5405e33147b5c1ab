"""Arrays in, arrays out: the arithmetic, which knows neither Dask nor Zarr nor pydantic."""
