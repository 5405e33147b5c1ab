"""Benchmarks: whole commands, timed from the shell; figures with machine, command and commit stand in RESULTS.md."""
