"""Least squares: a cut layer's weights set so that its outputs stay as near the dense ones as what it reads allows.

AMC (He et al., ECCV 2018) and channel pruning (He et al., ICCV 2017) fit the weights of a layer whose inputs are cut
on samples of its inputs. Here the dense network's first and second moments of the inputs are measured once, and every
width is solved from them in closed form [our choice]: what earlier cuts do to the inputs that stay is not looked at.
"""

import copy
from collections.abc import Collection, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from prune_env.common.layers import Convolution, is_depthwise
from prune_env.common.modes import in_eval_mode
from prune_env.criteria.patch_covariance import patch_moments, too_large
from prune_env.data import Batch
from prune_env.repair.registry import RepairContext, register_repair
from prune_env.surgery import Sides


class LeastSquares:
    """Repairs the layers that read cut channels; those of more than `LARGEST` weights an output stay as they are.

    Args:
        model: The dense network; it is not to change from now on.
        names: The layers that may lose inputs; others than convolutions and linear layers are passed over.
        batches: Images and targets, on the network's device; no target is read.
        normed: Layers whose outputs a batch norm alone reads, which takes out any constant.
        ridge: How strongly the weights are held to what they were, as a share of the inputs' mean square, above 0.

    Raises:
        EvaluationError: If a layer reads a number that is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Iterable[str],
        batches: Iterable[Batch],
        normed: Collection[str] = (),
        ridge: float = 1e-3,
    ) -> None:
        self.ridge = ridge
        layers = {name: model.get_submodule(name) for name in names}
        self._layers = {
            name: layer
            for name, layer in layers.items()
            if isinstance(layer, (*Convolution, nn.Linear)) and not is_depthwise(layer) and not too_large(layer.weight)
        }
        with in_eval_mode(model):
            moments = patch_moments(model, self._layers, batches)
        self._means = {name: found.mean.float() for name, found in moments.items()}
        # Where a bias or a batch norm can make up for a constant, only what varies has to be fitted.
        self._seconds = {
            name: found.curvature(self._layers[name].bias is not None or name in normed).float()
            for name, found in moments.items()
        }

    def tensors(self, name: str, sides: Sides) -> dict[str, Tensor]:
        """The tensors that a cut layer gets instead of the sliced ones; none where there is nothing to fit.

        Args:
            name: The layer's dotted name.
            sides: The channels that stay, for each side that is cut.
        """
        if name not in self._means or "in" not in sides:
            return {}
        layer, means = self._layers[name], self._means[name]
        groups = len(means)
        weight, bias = layer.get_parameter("weight").detach(), layer._parameters["bias"]
        dense = weight.float().flatten(1)
        inputs = sides["in"].reshape(groups, -1) - np.arange(groups)[:, None] * weight.shape[1]
        rows = sides.get("out", np.arange(len(dense))).reshape(groups, -1)
        area = dense.shape[1] // weight.shape[1]
        fitted, shifts = [], []
        for mean, second, slots, own in zip(means, self._seconds[name], inputs, rows, strict=True):
            chosen = torch.as_tensor((slots[:, None] * area + np.arange(area)).ravel(), device=dense.device)
            before = dense[torch.as_tensor(own, device=dense.device)]
            after = self._fit(before, second, chosen)
            fitted.append(after.reshape(len(own), len(slots), *weight.shape[2:]))
            shifts.append(before @ mean - after @ mean[chosen])
        found = {"weight": torch.cat(fitted).to(weight.dtype)}
        if bias is not None:
            staying = bias.detach().float()[torch.as_tensor(rows.ravel(), device=dense.device)]
            found["bias"] = (staying + torch.cat(shifts)).to(bias.dtype)
        return found

    def _fit(self, weight: Tensor, second: Tensor, chosen: Tensor) -> Tensor:
        """The weights [rows, chosen] that come nearest to ``weight`` [rows, all] on inputs with these moments."""
        reads = second[:, chosen]
        among = reads[chosen]
        missing = (weight @ reads - weight[:, chosen] @ among).double()
        held = among.double()
        # What never varies has no mean square to hold it by.
        held.diagonal().add_(max(self.ridge * float(among.diagonal().mean()), 1e-12))
        factor, failed = torch.linalg.cholesky_ex(held)
        # With a ridge that rounding swamps nothing can be fitted; what slicing leaves is then the nearest.
        found = torch.zeros_like(missing.mT) if failed else torch.cholesky_solve(missing.mT, factor)
        return weight[:, chosen] + found.mT.float()


@register_repair("least_squares")
def least_squares(context: RepairContext) -> LeastSquares:
    """Weights are fitted so that a layer's outputs stay near the dense network's."""
    scoring = context.scoring
    normed = {pair.conv for pair in scoring.fold_pairs}
    model = copy.deepcopy(scoring.walk.model).float().to(scoring.device)
    return LeastSquares(model, context.readers, scoring.batches(), normed, context.settings.ridge)
