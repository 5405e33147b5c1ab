"""Paths of tissue that moves while it is filmed."""
