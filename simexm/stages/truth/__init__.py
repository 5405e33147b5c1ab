"""Truth: the labels behind the image."""
