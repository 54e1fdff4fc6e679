"""Surgery: slices tensors and makes modules smaller, exactly and only on copies. Knows arrays, not plans."""

from prune_env.surgery.channels import Repair, Sides, slice_network

__all__ = ["Repair", "Sides", "slice_network"]
