"""Truth: what the image shows, exactly."""
