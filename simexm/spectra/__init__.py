"""Dyes, spectra and filters."""
