"""Dyes, filters, and the light that passes them."""
