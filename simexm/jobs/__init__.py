"""Run a function over many blocks, on threads, workers and batch queues; knows no microscopy."""
