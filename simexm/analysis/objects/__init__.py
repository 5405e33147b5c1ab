"""Objects in stored volumes: components, contacts, overlaps."""
