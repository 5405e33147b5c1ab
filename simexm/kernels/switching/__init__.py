"""Dyes that switch between states, as arrays."""
