"""The report on a result: one HTML page."""
