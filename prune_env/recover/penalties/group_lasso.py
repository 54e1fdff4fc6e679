"""Group lasso over units: the L2 norm of each channel, over all weights that go when the channel is cut.

The groups are those of DepGraph (Fang et al., CVPR 2023). As in growing regularisation (Wang et al., ICLR 2021), the
least important channels of a unit are pulled ever harder.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prune_env.batch_norm.fast_norm import BatchNorm
from prune_env.common.errors import ConfigError
from prune_env.common.layers import Convolution, Transposed, is_depthwise
from prune_env.recover.penalties.registry import Penalty, PenaltyContext, register_penalty
from prune_env.walk.unit import Member, Unit

STRENGTH = 1e-4
"""Default of ``sparsify.strength`` [our choice]."""

GROWTH = "sparsify_growth_of_"
"""Start of the names of the buffers that hold how far the strengths of a unit's channels have grown."""

TINY = 1e-12
"""Added to a squared norm, so that a channel of zeros has the gradient 0."""

SMALL = 0.1
"""`GroupLasso.record` counts channels with less than this share of their unit's largest norm [our choice]."""


@register_penalty("group_lasso")
class GroupLasso(Penalty):
    """The L2 norm of each channel over its unit's weights; the strength grows for the least important channels.

    The strength of a channel rises from ``sparsify.strength`` by at most ``sparsify.growth`` times as much: in each
    step by (largest norm - norm) / (largest norm - smallest norm) of its unit, shared out over the training. Growing
    regularisation raises it without a limit and on squared norms; the limit is DepGraph's, 2^4 times as strong at most
    [our choice]. Weights of convolutions and linear layers and scales of batch norms count; biases and shifts do not.

    Attributes:
        units: The units that may be cut and have weights.

    Raises:
        ConfigError: If no unit may be cut.
    """

    def __init__(self, context: PenaltyContext) -> None:
        settings = context.settings
        self.strength = STRENGTH if settings.strength is None else settings.strength
        self.growth = settings.growth
        self.units = [unit for unit in context.walk.free if _has_weights(unit, context.model)]
        if not self.units:
            raise ConfigError(
                "sparsify.penalty: 'group_lasso' shrinks the channels of units that may be cut, but this network has "
                "none. `prune-env inspect` gives the reasons. Protect less, or choose sparsify.epochs=0."
            )
        self._places = {
            (unit.name, place): torch.as_tensor(member.index)
            for unit in self.units
            for place, member in enumerate(unit.members)
        }
        self._done = 0.0

    def network(self, model: nn.Module) -> nn.Module:
        """The network with a buffer of growth, [channels], in the first layer of each unit."""
        for unit in self.units:
            model.get_submodule(unit.layer).register_buffer(_buffer_of(unit), torch.zeros(unit.channels))
        return model

    def attach(self, model: nn.Module, average: nn.Module | None, mean: Callable[[Tensor], Tensor]) -> None:
        """Takes the network in training."""
        super().attach(model, average, mean)
        device = next(model.parameters()).device
        self._places = {key: index.to(device) for key, index in self._places.items()}
        self._done = 0.0

    @torch.no_grad()
    def progress(self, share: float) -> None:
        """Raises the strengths of the least important channels, given the completed share of the training."""
        step, self._done = share - self._done, share
        for unit in self.units:
            norms = self.norms(unit, self.model)
            largest = norms.max()
            weakness = (largest - norms) / (largest - norms.min()).clamp_min(TINY)
            _growth_of(unit, self.model).add_(weakness, alpha=step)

    def resume(self, share: float) -> None:
        """Continues from a loaded checkpoint, given the completed share of the training."""
        self._done = share

    def penalty(self) -> Tensor:
        """The sum of the channels' norms times their strengths, a scalar."""
        terms = [
            ((1.0 + self.growth * _growth_of(unit, self.model)) * self.norms(unit, self.model)).sum()
            for unit in self.units
        ]
        return self.strength * torch.stack(terms).sum()

    def finish(self, trained: nn.Module) -> nn.Module:
        """The network without the buffers."""
        for unit in self.units:
            delattr(trained.get_submodule(unit.layer), _buffer_of(unit))
        return trained

    def record(self, trained: nn.Module) -> dict[str, Any]:
        """The share of each unit's channels with less than `SMALL` of the unit's largest norm."""
        with torch.no_grad():
            norms = {unit.name: self.norms(unit, trained) for unit in self.units}
        return {
            "below": SMALL,
            "shares": {name: float((one < SMALL * one.max()).float().mean()) for name, one in norms.items()},
        }

    def norms(self, unit: Unit, model: nn.Module) -> Tensor:
        """The L2 norm of each channel of a unit over all its weights, [channels]; has a gradient."""
        total: Tensor | None = None
        for place, member in enumerate(unit.members):
            squares = _squares(model.get_submodule(member.module), member)
            if squares is not None:
                index = self._places[unit.name, place].to(squares.device)
                part = squares[index].sum(1)
                total = part if total is None else total + part
        assert total is not None
        return (total + TINY).sqrt()


def _squares(module: nn.Module, member: Member) -> Tensor | None:
    """The sum of squared weights for each channel on a member's side; None if it has none, or another member has them.

    Args:
        module: The module.
        member: The module's side, ``out`` or ``in``; other sides have no weights.
    """
    if isinstance(module, BatchNorm):
        return module.weight.square() if module.affine and member.side == "out" else None
    if not isinstance(module, (*Convolution, *Transposed, nn.Linear)) or member.side not in ("in", "out"):
        return None
    groups = 1 if isinstance(module, nn.Linear) else module.groups
    if is_depthwise(module) and member.side == "in":
        return None  # the outputs have the same weights
    # The first axis of a weight holds all channels of one side, the second those of one group of the other side.
    blocks = module.weight.square().flatten(2) if module.weight.dim() > 2 else module.weight.square()[..., None]
    blocks = blocks.sum(2).unflatten(0, (groups, -1))
    first = "in" if isinstance(module, Transposed) else "out"
    squares: Tensor = blocks.sum(2 if member.side == first else 1).flatten()
    return squares


def _has_weights(unit: Unit, model: nn.Module) -> bool:
    return any(_squares(model.get_submodule(member.module), member) is not None for member in unit.members)


def _buffer_of(unit: Unit) -> str:
    return GROWTH + unit.name.replace(".", "_")


def _growth_of(unit: Unit, model: nn.Module) -> Tensor:
    return model.get_submodule(unit.layer).get_buffer(_buffer_of(unit))
