"""Penalties of a sparse training before a cut. Importing this package registers those of the library."""

from prune_env.recover.penalties.bn_scale import ScalePenalty
from prune_env.recover.penalties.cdp import TexturePenalty
from prune_env.recover.penalties.group_lasso import GroupLasso
from prune_env.recover.penalties.registry import PENALTIES, Penalty, PenaltyContext, PenaltyMaker, register_penalty

__all__ = [
    "PENALTIES",
    "GroupLasso",
    "Penalty",
    "PenaltyContext",
    "PenaltyMaker",
    "ScalePenalty",
    "TexturePenalty",
    "register_penalty",
]
