"""The specification that a user writes: its models, cross-checks and errors."""
