"""Scores of an alignment against the true transform, points, or labels."""
