"""Layer-wise optimal brain surgeon: the squared error of a layer's pre-activations when a channel is removed.

After Yang and Liu (Neurocomputing 2022) and Yang (2024), system D: the curvature is computed layer by layer, as in
L-OBS (Dong et al., NeurIPS 2017), and a channel's sensitivity is the sum of the sensitivities of its weights. For the
error E = mean_j (z_j' - z_j)^2 / 2 of one output channel, the Hessian is the same for all channels of the layer or, in
a grouped convolution, of the group: H = mean_j x_j x_j^T over all images and output positions j, where x_j is the
im2col patch. The factor 1/2 makes a score the predicted rise of E. No target is read.

The bias [our choice]: H includes the bias' constant input 1, so the surgeon may change the bias to compensate for a
weight, as recalibration after the cut does. The removal of the bias itself is not counted.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_env.common.errors import ConfigError, EvaluationError
from prune_env.criteria.context import ScoringContext
from prune_env.criteria.curvature import channel_quadratics
from prune_env.criteria.patch_covariance import (
    LARGEST,
    patch_moments,
    shrunk_inverse_diagonal,
    too_large,
    watch,
)
from prune_env.criteria.registry import register_criterion
from prune_env.walk import Scores

SHRINKAGE = 0.01
"""Share of H that its mean diagonal replaces before the inversion [our choice; GPTQ uses the same damping]."""

IMAGES_AT_ONCE = 16
"""Images per batch, to bound memory: the patches of a k x k layer need k x k times the memory of its input."""


@register_criterion("lobs", needs="images")
def lobs(context: ScoringContext) -> Scores:
    """S_c = 1/2 sum_q w_cq^2 / [H^-1]_qq, the optimal brain surgeon's saliencies summed over the channel.

    Raises:
        ConfigError: If a layer's H is too large to invert.
        EvaluationError: If a layer's input is not finite.
    """
    for name, weight in context.weights.items():
        if too_large(weight):
            raise ConfigError(
                f"criterion.name: 'lobs' inverts a matrix of {weight[0].numel()} rows for layer {name!r}; at most "
                f"{LARGEST} are allowed. Use 'lobs_block', which inverts no matrix."
            )
    values = {}
    moments = patch_moments(context.folded, context.weights, context.batches())
    for name, weight in context.weights.items():
        has_bias = context.folded.get_submodule(name).bias is not None
        curvature = moments.pop(name).curvature(centred=has_bias)
        try:
            by_weight = 1.0 / shrunk_inverse_diagonal(curvature, SHRINKAGE)
        except EvaluationError as error:
            raise EvaluationError(
                f"Layer {name!r}: {error} Check the network's weights, or use 'lobs_block'."
            ) from None
        values[name] = channel_quadratics(weight, by_channel(by_weight, weight))
    return context.summed(values)


@register_criterion("lobs_block", needs="images")
def lobs_block(context: ScoringContext) -> Scores:
    """S_c = 1/2 w_c^T H w_c: half the mean square of the channel's pre-activation without bias, exact and cheap."""
    squares: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def see(name: str, module: nn.Module, _inputs: Tensor, output: Tensor) -> None:
        # Channels are the last axis of a linear layer's output and the second of a convolution's.
        rows = (output if isinstance(module, nn.Linear) else output.movedim(1, -1)).flatten(0, -2)
        bias = module._parameters["bias"]
        plain = rows.double() if bias is None else rows.double() - bias.double()
        squares[name] = squares.get(name, 0) + plain.square().sum(0)
        counts[name] = counts.get(name, 0) + len(rows)

    watch(context.folded, context.weights, context.batches(at_once(context)), see)
    halves: dict[str, npt.NDArray[np.float64]] = {
        name: (0.5 * squares[name] / counts[name]).cpu().numpy() for name in context.weights
    }
    return context.summed(halves)


def by_channel(by_group: Tensor, weight: Tensor) -> Tensor:
    """Repeats values [groups, d] for every output channel, in the shape of the weight tensor."""
    repeated = torch.repeat_interleave(by_group, len(weight) // len(by_group), dim=0)
    return repeated.reshape(weight.shape)


def at_once(context: ScoringContext) -> int:
    """Returns the number of images per batch whose patches fit into memory."""
    return min(context.batch_size, IMAGES_AT_ONCE)
