"""Analyses: jobs over stored volumes and tables."""
