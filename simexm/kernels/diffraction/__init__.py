"""Point spread functions."""
