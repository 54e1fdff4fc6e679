"""Surgery: tensors sliced and modules made smaller, exact, on copies only. It knows arrays, not plans."""

from prune_env.surgery.channels import Repair, Sides, slice_network

__all__ = ["Repair", "Sides", "slice_network"]
