"""Group: channels, and convolutions split into groups that each read selected inputs (AGSPRL)."""

from prune_env.granularity.group.edit import GroupEdit, groups_of
from prune_env.granularity.group.granularity import Group

__all__ = ["Group", "GroupEdit", "groups_of"]
