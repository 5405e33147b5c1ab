"""Files, shards and OME-Zarr, on disks and object stores; knows no plan."""
