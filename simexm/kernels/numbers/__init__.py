"""Mathematical functions and random draws, bit-identical on every machine."""
