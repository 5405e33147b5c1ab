"""Report on a result: one HTML page."""
