"""No repair: batch-norm statistics are measured anew, and weights stay as they are."""

from prune_env.repair.registry import RepairContext, register_repair


@register_repair("none")
def none(context: RepairContext) -> None:
    """Nothing beside batch-norm statistics, which are measured anew with every repair."""
