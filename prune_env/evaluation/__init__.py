"""Evaluation: measures the quality of plans, in the fastest execution settings of this machine."""
