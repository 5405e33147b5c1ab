"""Benchmarks: whole commands, timed from the shell; RESULTS.md has the numbers with machine, command and commit."""
