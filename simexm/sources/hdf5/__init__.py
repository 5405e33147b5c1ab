"""Labels in HDF5 and the formats that build on it."""
