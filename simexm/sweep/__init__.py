"""Run an experiment for many values of its settings, analyse each, and collect the scores in one table."""
