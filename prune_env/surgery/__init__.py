"""Surgery: a plan applied to a network, exact, on copies only."""

from prune_env.surgery.channels import apply_plan, slice_network

__all__ = ["apply_plan", "slice_network"]
