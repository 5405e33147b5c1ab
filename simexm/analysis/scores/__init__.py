"""Scores of results against the truth."""
