"""A simulation as jobs: driver, blocks, levels of the pyramid, verification, repair."""
