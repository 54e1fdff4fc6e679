"""BN scale: the L1 norm of the batch norms' scales (network slimming, Liu et al., ICCV 2017)."""

from typing import Any

import torch
from torch import Tensor, nn

from prune_env.batch_norm.fast_norm import BatchNorm
from prune_env.common.errors import ConfigError
from prune_env.recover.penalties.registry import Penalty, PenaltyContext, register_penalty

STRENGTH = 1e-4
"""Default of ``sparsify.strength``: the paper's value for VGG on CIFAR-10."""

SMALL = 0.01
"""`ScalePenalty.record` counts scales below this [our choice]."""


@register_penalty("bn_scale")
class ScalePenalty(Penalty):
    """The sum of |gamma| over the batch norms of the units that may be cut.

    Raises:
        ConfigError: If no such unit has a batch norm with a scale.
    """

    def __init__(self, context: PenaltyContext) -> None:
        given = context.settings.strength
        self.strength = STRENGTH if given is None else given
        self._places: dict[str, Tensor] = {}
        for unit in context.walk.free:
            for member in unit.members:
                module = context.model.get_submodule(member.module)
                if isinstance(module, BatchNorm) and module.affine:
                    marked = self._places.setdefault(member.module, torch.zeros(module.num_features, dtype=torch.bool))
                    marked[torch.as_tensor(member.index.ravel())] = True
        if not self._places:
            raise ConfigError(
                "sparsify.penalty: 'bn_scale' shrinks the scales of batch norms, but no unit that may be cut has a "
                "batch norm with a scale. Choose another penalty, such as 'group_lasso'."
            )

    def penalty(self) -> Tensor:
        """The strength times the sum of |gamma|, a scalar."""
        return self.strength * torch.stack([scales.sum() for scales in self._scales(self.model).values()]).sum()

    def record(self, trained: nn.Module) -> dict[str, Any]:
        """The share of scales below `SMALL` in each batch norm."""
        shares = {name: float((scales < SMALL).float().mean()) for name, scales in self._scales(trained).items()}
        return {"below": SMALL, "shares": shares}

    def _scales(self, model: nn.Module) -> dict[str, Tensor]:
        """|gamma| of the channels that may be cut, by batch norm."""
        found = {}
        for name, places in self._places.items():
            scale: Tensor = model.get_submodule(name).weight  # type: ignore[assignment]
            found[name] = scale[places.to(scale.device)].abs()
        return found
