"""Repairs: what makes up for a cut without training."""
