"""From a spec to a plan: grids, blocks, halos, memory, parameter hash."""
