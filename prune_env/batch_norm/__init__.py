"""Batch norms of cut networks: folding, recalibration, and a fast forward pass on the CPU."""
