"""Mathematical functions and random draws that have the same bits on every machine."""
