"""The phantom: a procedural piece of neuropil."""
