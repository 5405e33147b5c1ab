"""The simulation as jobs: its blocks, passes and levels, the end, verification and repair."""
