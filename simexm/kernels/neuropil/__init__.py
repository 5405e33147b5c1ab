"""The phantom: procedural neuropil."""
