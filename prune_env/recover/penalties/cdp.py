"""CDP: a penalty on filters and stripes, balanced by how alike the filters' textures are.

The paper (Li et al., AI Communications 2023) gives no formula. This is what the released code means to compute. What
the released code computes is twice the L1 norm: its term for filters is the L1 norm, too, and it forgets the
similarity of the last step. The mode ``released`` does the same.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prune_env.common.errors import ConfigError
from prune_env.granularity.stripe.skeleton import (
    DynamicThreshold,
    Skeleton,
    add_skeletons,
    fold_skeletons,
    skeletons_of,
)
from prune_env.recover.penalties.registry import Penalty, PenaltyContext, register_penalty

STRENGTH = 1e-5
"""Default of ``sparsify.strength`` [our choice]: the mode ``released`` then has PFF's strength on ImageNet, 2e-5."""

MARGIN = 1e-6
"""Distance of a cosine from 1: at 1 the gradient of acos is infinite."""

SMALL = 0.01
"""`TexturePenalty.record` counts strengths at most this, if there is no threshold: PFF's threshold on CIFAR-10."""


class TexturedSkeleton(Skeleton):
    """A skeleton that knows the similarity of its filters in the last step.

    Attributes:
        similarity: `texture_similarity` of the last step, a scalar; 0 before the first step.
    """

    similarity: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.register_buffer("similarity", weight.detach().new_zeros(()))


@register_penalty("cdp")
class TexturePenalty(Penalty):
    """CDP: norms of filter skeletons; the weights follow the similarity of textures; DTC may cut stripes.

    Every convolution that may be cut in stripes gets a skeleton (`add_skeletons`). With ``sparsify.threshold`` above 0,
    stripes below their filter's `DynamicThreshold` die before each step.

    Raises:
        ConfigError: If no convolution can have a skeleton.
    """

    def __init__(self, context: PenaltyContext) -> None:
        settings = context.settings
        self.strength = STRENGTH if settings.strength is None else settings.strength
        self.released = settings.mode == "released"
        self.threshold = DynamicThreshold(settings.threshold, relative=not self.released)
        self._context = context
        self._skeletons: dict[str, Skeleton] = {}

    def network(self, model: nn.Module) -> nn.Module:
        """The network with a `TexturedSkeleton` for each convolution that may be cut in stripes."""
        context = self._context
        if not add_skeletons(model, context.images, context.untouched, TexturedSkeleton):
            raise ConfigError(
                "sparsify.penalty: 'cdp' shrinks the stripes of plain convolutions with a kernel larger than 1x1 and "
                "without groups, but this network has none that may be cut. Choose another penalty, such as "
                "'group_lasso'."
            )
        return model

    def attach(self, model: nn.Module, average: nn.Module | None, mean: Callable[[Tensor], Tensor]) -> None:
        """Takes the network in training."""
        super().attach(model, average, mean)
        self._skeletons = skeletons_of(model)

    def progress(self, share: float) -> None:  # noqa: ARG002
        """Kills the stripes that are not above their thresholds."""
        if self.threshold.threshold:
            for skeleton in self._skeletons.values():
                self.threshold.cut(skeleton)

    def penalty(self) -> Tensor:
        """The sum over all skeletons, a scalar; remembers the similarities for the next step."""
        terms = []
        for skeleton in self._skeletons.values():
            assert isinstance(skeleton, TexturedSkeleton)
            strengths = skeleton.strengths
            if self.released:
                terms.append(2.0 * self.strength * strengths.abs().sum())
                continue
            with torch.no_grad():
                now = texture_similarity(strengths)
                filters, stripes = coefficients(now, skeleton.similarity, self.strength)
                skeleton.similarity.copy_(now)
            terms.append(filters * filter_norm(strengths) + stripes * strengths.abs().sum())
        return torch.stack(terms).sum()

    def finish(self, trained: nn.Module) -> nn.Module:
        """The network with skeletons and masks multiplied into the weights."""
        return fold_skeletons(trained)

    def record(self, trained: nn.Module) -> dict[str, Any]:
        """The share of weak stripes in each convolution: dead ones; without a threshold, those of at most `SMALL`."""
        least = 0.0 if self.threshold.threshold else SMALL
        found = skeletons_of(trained)
        emptied = [name for name, one in found.items() if int(one.mask.sum()) == 1]
        return {
            "warnings": [_emptied(emptied)] if emptied else [],
            "threshold": self.threshold.threshold,
            "below": least,
            "shares": {name: float((one.strengths.abs() <= least).float().mean()) for name, one in found.items()},
            "dead_filters": {name: int((~one.alive).sum()) for name, one in found.items()},
        }


def _emptied(names: list[str]) -> str:
    return (
        f"The threshold would have emptied {', '.join(names)}; the strongest stripe stays. "
        "Lower sparsify.threshold or sparsify.strength."
    )


def texture_similarity(strengths: Tensor) -> Tensor:
    """How alike the filters' textures are: the sum over filters of 1 - (angle to the mean skeleton) / pi.

    Args:
        strengths: `Skeleton.strengths`, [N, K, L].

    Returns:
        A scalar in (0, N).
    """
    textures = strengths.flatten(1)
    mean = textures.mean(0)
    norms = torch.linalg.vector_norm(textures, dim=1)
    cosines = textures @ mean / (norms * torch.linalg.vector_norm(mean) + 1e-7)
    angles: Tensor = cosines.clamp(-1.0 + MARGIN, 1.0 - MARGIN).acos()
    return (1.0 - angles / math.pi).sum()


def coefficients(now: Tensor, before: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """The weights of the norm of filters and of the norm of stripes; their product is the square of the strength.

    Filters weigh more when textures become more alike, and stripes when they become less alike.

    Args:
        now: `texture_similarity` of this step, a scalar.
        before: That of the last step; 0 in the first step, where both weights are the strength.
        strength: The strength of the penalty.
    """
    ratio = torch.where(before > 0, now / before, torch.ones_like(now))
    return strength * ratio, strength / ratio


def filter_norm(strengths: Tensor) -> Tensor:
    """The norm of filters, a scalar: the sum of the L2 norms of their skeletons, times sqrt(K * L).

    The factor is the group lasso's, which the released code misses [our choice].

    Args:
        strengths: `Skeleton.strengths`, [N, K, L].
    """
    textures = strengths.flatten(1)
    norms: Tensor = torch.linalg.vector_norm(textures, dim=1)
    return math.sqrt(textures.shape[1]) * norms.sum()
