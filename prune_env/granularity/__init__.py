"""Granularities: what shape is cut."""
