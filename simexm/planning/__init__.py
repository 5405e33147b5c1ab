"""From a specification to a plan: grids, frames, blocks, halos, memory, and the parameter hash."""
