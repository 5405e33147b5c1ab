"""From emitters to an image."""
