"""From light to counts."""
