"""Wiring: synapses, and the matrix of who contacts whom."""
