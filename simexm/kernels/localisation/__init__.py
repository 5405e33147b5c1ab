"""Single molecules: detection, fits, pairing, and pictures."""
