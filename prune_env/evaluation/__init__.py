"""Evaluation: what a plan is worth, measured as fast as this machine can."""
