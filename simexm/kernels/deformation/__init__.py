"""Smooth displacement of tissue: lattices of cubic B-splines, moving points by them and back."""
