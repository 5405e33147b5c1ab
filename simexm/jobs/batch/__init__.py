"""Batch queues: cluster files, job scripts, and the jobs that they start."""
