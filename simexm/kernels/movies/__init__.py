"""Compare footprints, traces and shifts that were found in a movie with the true ones."""
