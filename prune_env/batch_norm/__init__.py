"""Batch norms of cut networks: folded, recalibrated, and passed at the speed of memory."""
