"""Microscopes: how dyes become light on a detector."""
