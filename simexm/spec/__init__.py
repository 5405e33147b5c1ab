"""What a user writes: the root model of a spec and its checks."""
