"""Expansion: where tissue comes to lie."""
