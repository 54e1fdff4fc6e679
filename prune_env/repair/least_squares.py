"""Least squares: fits a cut layer's weights so that its outputs stay as near the dense outputs as its inputs allow.

AMC (He et al., ECCV 2018) and channel pruning (He et al., ICCV 2017) fit the weights of a layer whose inputs are cut
on samples of its inputs. Here the first and second moments of the inputs are measured once, in the dense network, and
every width is solved from them in closed form [our choice]. The fit ignores that earlier cuts change the inputs that
stay.
"""

from collections.abc import Collection, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from prune_env.common.copying import copied
from prune_env.common.layers import Convolution, is_depthwise
from prune_env.common.modes import in_eval_mode
from prune_env.criteria.patch_covariance import patch_moments, too_large
from prune_env.data import Batch
from prune_env.repair.registry import RepairContext, register_repair
from prune_env.surgery import Sides


class LeastSquares:
    """Repairs the layers that read cut channels; a layer with over `LARGEST` weights per output stays sliced.

    Args:
        model: The dense network; it must not change afterwards.
        names: The layers that may lose inputs; only convolutions (not depthwise) and linear layers are repaired.
        batches: Images and targets, on the network's device; the targets are not used.
        normed: Layers whose outputs only a batch norm reads; the batch norm removes any constant.
        ridge: Strength of the pull towards the dense weights, as a share of the inputs' mean square, above 0.

    Raises:
        EvaluationError: If a layer's input is not finite.
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
        self._means = {name: moment.mean.float() for name, moment in moments.items()}
        # A bias or a batch norm makes up for a constant, so fit the covariance instead of the second moment.
        self._seconds = {
            name: moment.curvature(self._layers[name].bias is not None or name in normed).float()
            for name, moment in moments.items()
        }

    def tensors(self, name: str, sides: Sides) -> dict[str, Tensor]:
        """The fitted tensors that replace the sliced ones, by name; empty if there is nothing to fit.

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
        tensors = {"weight": torch.cat(fitted).to(weight.dtype)}
        if bias is not None:
            staying = bias.detach().float()[torch.as_tensor(rows.ravel(), device=dense.device)]
            tensors["bias"] = (staying + torch.cat(shifts)).to(bias.dtype)
        return tensors

    def _fit(self, weight: Tensor, second: Tensor, chosen: Tensor) -> Tensor:
        """The weights [rows, chosen] that best reproduce the outputs of ``weight`` [rows, all], by second moments."""
        reads = second[:, chosen]
        among = reads[chosen]
        missing = (weight @ reads - weight[:, chosen] @ among).double()
        damped = among.double()
        # The floor keeps the matrix invertible for inputs that never vary: their mean square is 0.
        damped.diagonal().add_(max(self.ridge * float(among.diagonal().mean()), 1e-12))
        factor, failed = torch.linalg.cholesky_ex(damped)
        # If rounding swamps the ridge, the matrix is not positive definite: keep the sliced weights.
        correction = torch.zeros_like(missing.mT) if failed else torch.cholesky_solve(missing.mT, factor)
        return weight[:, chosen] + correction.mT.float()


@register_repair("least_squares")
def least_squares(context: RepairContext) -> LeastSquares:
    """Weights are fitted so that a layer's outputs stay near the dense network's."""
    scoring = context.scoring
    normed = {pair.conv for pair in scoring.fold_pairs}
    model = copied(scoring.walk.model).float().to(scoring.device)
    return LeastSquares(model, context.readers, scoring.batches(), normed, context.settings.ridge)
