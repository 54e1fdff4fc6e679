"""Surgery: a plan applied to a network, exact, on copies only, and repairs of what it leaves."""

from prune_env.surgery.channels import apply_plan, slice_network
from prune_env.surgery.repair import Repair

__all__ = ["Repair", "apply_plan", "slice_network"]
