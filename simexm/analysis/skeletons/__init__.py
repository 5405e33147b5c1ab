"""Skeletons of the objects of a volume, in blocks; what is sampled along them; scores along them."""
