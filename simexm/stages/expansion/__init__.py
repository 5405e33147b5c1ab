"""Expansion: displacement of tissue and dyes."""
