"""What a user writes: the models of a specification, its cross-checks, its errors."""
