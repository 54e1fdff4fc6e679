"""Filter skeletons: one trained strength for each stripe of a convolution, and a mask of the stripes that are alive.

A stripe (n, i, j) is the vector weight[n, :, i, j] over the input channels. Skeletons are those of PFF (Meng et al.,
NeurIPS 2020). PFF zeroes weak stripes in every step, and momentum may revive them. Here the mask is a buffer from which
stripes are only removed [our choice].
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from prune_env.batch_norm.folding import find_fold_pairs


class Skeleton(nn.Module):
    """A parametrization of a convolution's weight [N, C, K, L]: weight * skeleton[:, None] * mask[:, None].

    In PFF all strengths start at 1, on random weights, whose stripes are about equally long. On trained weights the
    strengths start at the stripes' norms instead, divided by their mean [our choice]. A penalty then shrinks short
    stripes to 0 first; if all started at 1, it would shrink all alike.

    Args:
        weight: The weight that the network has; its outputs do not change.

    Attributes:
        skeleton: A trained strength for each stripe, [N, K, L].
        mask: Whether a stripe is alive, bool [N, K, L], at first everywhere. A dead stripe computes 0 and has no
            gradient.
    """

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        filters, _, *kernel = weight.shape
        norms = weight.detach().norm(dim=1)
        self.skeleton = nn.Parameter(norms / norms.mean().clamp_min(1e-30))
        self.register_buffer("mask", torch.ones(filters, *kernel, dtype=torch.bool, device=weight.device))

    @property
    def strengths(self) -> Tensor:
        """The skeleton with 0 for dead stripes, [N, K, L]; has a gradient."""
        return self.skeleton * self.mask

    @property
    def alive(self) -> Tensor:
        """Whether a filter has a stripe that is alive, bool [N]."""
        return self.mask.flatten(1).any(1)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the convolution uses, [N, C, K, L]."""
        return weight * self.strengths[:, None]

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight to train so that the convolution uses the given one, both [N, C, K, L]."""
        return weight / torch.where(self.skeleton == 0, 1.0, self.skeleton.detach())[:, None]

    @torch.no_grad()
    def keep(self, staying: Tensor) -> None:
        """Kills the stripes outside of ``staying``, bool [N, K, L]; nothing happens if no stripe would be left."""
        left = self.mask & staying
        self.mask.copy_(torch.where(left.any(), left, self.mask))


class LiveFilters(nn.Module):
    """A parametrization of a vector [N] over filters: 0 for filters without stripes, for biases and batch norms.

    As in PFF, a dead filter then puts out 0 instead of its batch norm's shift, so that it can be cut exactly.

    Args:
        skeleton: The skeleton of the filters.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__()
        # A tuple hides the module from torch: as a child, its tensors would be saved once more.
        self._skeleton = (skeleton,)

    def forward(self, values: Tensor) -> Tensor:
        """The values [N], with 0 for dead filters."""
        return values * self._skeleton[0].alive


@dataclass(frozen=True)
class DynamicThreshold:
    """DTC's threshold for each filter: a strong filter keeps weaker stripes than a weak filter.

    The formula is that of DTC (Li et al., AI Communications 2023). The released code cuts by the constant at the end;
    here the mask decides [our choice].

    Attributes:
        threshold: The threshold of a filter of mean strength, 0 or more.
        relative: Whether strengths are divided by the mean of the layer's live stripes first [our choice]. A penalty
            shrinks all stripes of a layer alike, and batch norm undoes it, so that all stripes would pass a fixed
            threshold at the same time.
    """

    threshold: float
    relative: bool = False

    def of(self, strengths: Tensor) -> Tensor:
        """The threshold of each filter: threshold * mean(g) / g[n], where g[n] is the sum of its absolute strengths.

        Args:
            strengths: `Skeleton.strengths`, [N, K, L].

        Returns:
            [N]; infinite for a dead filter.
        """
        norms = strengths.detach().abs().flatten(1).sum(1)
        thresholds = self.threshold * norms.mean() / norms
        return torch.where(norms > 0, thresholds, torch.inf)

    def staying(self, strengths: Tensor) -> Tensor:
        """The stripes above their filter's threshold, and always the strongest of the layer: bool [N, K, L].

        Args:
            strengths: As `of`.
        """
        sizes = strengths.detach().abs()
        if self.relative:
            sizes = sizes * (sizes > 0).sum() / sizes.sum().clamp_min(1e-30)
        staying = sizes > self.of(strengths)[:, None, None]
        # A layer without stripes would cut the network in two.
        staying.view(-1)[sizes.argmax()] = True
        return staying

    def cut(self, skeleton: Skeleton) -> None:
        """Kills the stripes of a layer that are not above their thresholds."""
        skeleton.keep(self.staying(skeleton.strengths))


def add_skeletons(
    model: nn.Module,
    images: Tensor,
    untouched: Collection[str] = (),
    make: Callable[[Tensor], Skeleton] = Skeleton,
) -> dict[str, Skeleton]:
    """Gives the convolutions of a network skeletons, in place; the network's outputs do not change.

    Only plain convolutions with a kernel larger than 1x1 and without groups get one. A convolution's bias, and the
    batch norm that alone reads the convolution, become 0 for filters without stripes.

    Args:
        model: The network, on the CPU.
        images: One or more images, [N, C, H, W], to find the batch norm that follows each convolution.
        untouched: Names of convolutions that get no skeleton.
        make: Makes a skeleton from a weight.

    Returns:
        The skeletons by the names of their convolutions, in the network's order; empty if there is none to add.
    """
    norms = {pair.conv: pair.norm for pair in find_fold_pairs(model, images)}
    uses: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    chosen = [
        (name, module)
        for name, module in model.named_modules()
        if name not in untouched and _has_stripes(module) and uses[id(module.weight)] == 1
    ]
    for name, module in chosen:
        assert isinstance(module.weight, Tensor)
        skeleton = make(module.weight)
        parametrize.register_parametrization(module, "weight", skeleton)
        following = [(module, "bias")]
        if name in norms:
            norm = model.get_submodule(norms[name])
            following += [(norm, "weight"), (norm, "bias")]
        for holder, tensor in following:
            if holder._parameters.get(tensor) is not None:
                parametrize.register_parametrization(holder, tensor, LiveFilters(skeleton))
    return skeletons_of(model)


def _has_stripes(module: nn.Module) -> bool:
    """Whether a module is a plain convolution that pads with zeros: a trained kernel larger than 1x1, no groups."""
    if type(module) is not nn.Conv2d or module.groups != 1 or max(module.kernel_size) == 1:
        return False
    if module.padding_mode != "zeros":
        return False
    weight = module._parameters.get("weight")
    return weight is not None and weight.requires_grad


def skeletons_of(model: nn.Module) -> dict[str, Skeleton]:
    """The skeletons of a network by the names of their convolutions, in the network's order."""
    found = {}
    for name, module in model.named_modules():
        for made in _parametrizations_of(module).get("weight", ()):
            if isinstance(made, Skeleton):
                found[name] = made
    return found


def fold_skeletons(model: nn.Module) -> nn.Module:
    """Multiplies skeletons and masks into the weights, in place, and removes them; outputs do not change.

    Returns:
        The given network, with modules of the types that it had before `add_skeletons`.
    """
    for module in list(model.modules()):
        for tensor, made in list(_parametrizations_of(module).items()):
            if any(isinstance(one, (Skeleton, LiveFilters)) for one in made):
                parametrize.remove_parametrizations(module, tensor, leave_parametrized=True)
    return model


def _parametrizations_of(module: nn.Module) -> Mapping[str, list[nn.Module]]:
    if not parametrize.is_parametrized(module):
        return {}
    made: nn.ModuleDict = module.parametrizations  # type: ignore[assignment]
    return {tensor: list(steps) for tensor, steps in made.items()}  # type: ignore[call-overload]
