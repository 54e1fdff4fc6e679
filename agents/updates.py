"""Updates of small networks without autograd's bookkeeping: the same operations, the same digits, a third of the time.

A search makes one update a step, and each takes longer to record than to compute. So the gradients of a chain of linear
layers are written out here. They are the operations that autograd itself would call, in its order.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

MEAN = 1
"""torch's number for the mean of a loss over its elements."""


class Chain:
    """Linear layers with ReLU between them, on rows [N, features].

    Args:
        layers: Linear, ReLU, Linear, ..., Linear; after them Tanh or nothing.

    Attributes:
        parameters: The weight and the bias of each layer, in the order of ``layers.parameters()``.
    """

    def __init__(self, layers: nn.Module) -> None:
        assert isinstance(layers, nn.Sequential)
        self._linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self._bounded = isinstance(layers[-1], nn.Tanh)
        # Views, so that they follow the optimiser's updates.
        self._weights = [(layer.bias, layer.weight, layer.weight.t()) for layer in self._linears]
        self.parameters = list(layers.parameters())

    def forward(self, rows: Tensor) -> list[Tensor]:
        """The input of each layer, and last the output."""
        found = [rows]
        last = len(self._linears) - 1
        for number, (bias, _, transposed) in enumerate(self._weights):
            rows = torch.addmm(bias, rows, transposed)
            if number < last:
                rows = rows.relu_()
            elif self._bounded:
                rows = rows.tanh_()
            found.append(rows)
        return found

    def gradients(self, found: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
        """The gradients of `parameters`.

        Args:
            found: The result of `forward`.
            gradient: The loss's gradient for the output [N, outputs].
        """
        gradients: list[Tensor] = []
        for number in reversed(range(len(self._linears))):
            gradient = self._before(number, found, gradient)
            gradients = [gradient.t().mm(found[number]), gradient.sum(0), *gradients]
            if number:
                gradient = gradient.mm(self._weights[number][1])
        return gradients

    def input_gradient(self, found: Sequence[Tensor], gradient: Tensor) -> Tensor:
        """The gradient for the input [N, features]; arguments as `gradients`."""
        for number in reversed(range(len(self._linears))):
            gradient = self._before(number, found, gradient).mm(self._weights[number][1])
        return gradient

    def _before(self, number: int, found: Sequence[Tensor], gradient: Tensor) -> Tensor:
        """The gradient for a linear layer's result, from that for what follows it."""
        output = found[number + 1]
        if number < len(self._linears) - 1:
            return torch.ops.aten.threshold_backward(gradient, output, 0)  # type: ignore[no-any-return]
        return torch.ops.aten.tanh_backward(gradient, output) if self._bounded else gradient


def squares_gradient(values: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """The gradient of ``weight`` times the mean squared difference, for the values."""
    return torch.ops.aten.mse_loss_backward(weight, values, targets, MEAN)  # type: ignore[no-any-return]


class FusedAdam:
    """Steps of a torch Adam optimiser that was made with ``fused=True``, without what its `step` does around them.

    The optimiser's own state is used and updated, so that the two may be mixed.

    Args:
        optimiser: The optimiser, with one group of parameters.
    """

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        self._optimiser = optimiser

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Takes one step with a gradient for each parameter."""
        (group,) = self._optimiser.param_groups
        parameters: list[nn.Parameter] = group["params"]
        if len(self._optimiser.state) < len(parameters):
            # The first step lets torch make the state.
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            self._optimiser.step()
            return
        states: list[dict[str, Any]] = [self._optimiser.state[parameter] for parameter in parameters]
        adam(
            parameters,  # type: ignore[arg-type]
            list(gradients),
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=group["amsgrad"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )
