"""Runs: the run directory, and the searches and trainings that fill it."""
