"""Groups: channels, and convolutions that fall into groups which read inputs of their own choice (AGSPRL)."""

from prune_env.granularity.group.edit import GroupEdit, groups_of
from prune_env.granularity.group.granularity import Group

__all__ = ["Group", "GroupEdit", "groups_of"]
