"""Run a function over many blocks: workers, retries, journal, locks, batch queues. Knows no microscopy."""
