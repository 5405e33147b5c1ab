"""Files on disks and in object stores: claims, shards, pyramids, OME-Zarr, Parquet; knows no plan."""
