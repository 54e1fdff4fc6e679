"""Updates of small networks without autograd's bookkeeping: the same operations, the same digits, a third of the time.

A search makes one update a step, and each takes longer to record than to compute. So the gradients of a chain of linear
layers are written out here. They are the operations that autograd itself would call, in its order. The parameters of a
chain lie in one vector, so that an optimiser's step is one operation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MEAN = 1
"""torch's number for the mean of a loss over its elements."""


class Parameters:
    """A vector with one value for each parameter of a chain, or with its gradient.

    Args:
        shapes: The shapes of the parameters.

    Attributes:
        vector: float32 [parameters].
        parts: The vector as one tensor for each parameter.
    """

    def __init__(self, shapes: Sequence[torch.Size]) -> None:
        self.vector = torch.zeros(sum(shape.numel() for shape in shapes))
        parts = self.vector.split([shape.numel() for shape in shapes])
        self.parts = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


class Chain:
    """Linear layers with ReLU between them, on rows [N, features].

    The layers' parameters become views of one vector, and keep their values.

    Args:
        layers: Linear, ReLU, Linear, ..., Linear; after them Tanh or nothing.

    Attributes:
        parameters: The weight and the bias of each layer, in the order of ``layers.parameters()``.
    """

    def __init__(self, layers: nn.Module) -> None:
        assert isinstance(layers, nn.Sequential)
        self._bounded = isinstance(layers[-1], nn.Tanh)
        given = list(layers.parameters())
        self._shapes = [parameter.shape for parameter in given]
        self.parameters = self.room()
        for parameter, part in zip(given, self.parameters.parts, strict=True):
            parameter.data = part.copy_(parameter.detach())
        parts = self.parameters.parts
        self._layers = [(bias, weight, weight.t()) for weight, bias in zip(parts[::2], parts[1::2], strict=True)]

    def room(self) -> Parameters:
        """Room for gradients."""
        return Parameters(self._shapes)

    def forward(self, rows: Tensor) -> list[Tensor]:
        """The input of each layer, and last the output."""
        found = [rows]
        last = len(self._layers) - 1
        for number, (bias, _, transposed) in enumerate(self._layers):
            rows = torch.addmm(bias, rows, transposed)
            if number < last:
                rows.relu_()
            elif self._bounded:
                rows.tanh_()
            found.append(rows)
        return found

    def gradients(self, found: Sequence[Tensor], gradient: Tensor, into: Parameters) -> Tensor:
        """The gradients of `parameters`.

        Args:
            found: The result of `forward`.
            gradient: The loss's gradient for the output [N, outputs].
            into: Where the gradients are written.

        Returns:
            The vector of ``into``.
        """
        for number in reversed(range(len(self._layers))):
            gradient = self._before(number, found, gradient)
            torch.mm(gradient.t(), found[number], out=into.parts[2 * number])
            torch.sum(gradient, 0, out=into.parts[2 * number + 1])
            if number:
                gradient = gradient.mm(self._layers[number][1])
        return into.vector

    def input_gradient(self, found: Sequence[Tensor], gradient: Tensor) -> Tensor:
        """The gradient for the input [N, features]; arguments as `gradients`."""
        for number in reversed(range(len(self._layers))):
            gradient = self._before(number, found, gradient).mm(self._layers[number][1])
        return gradient

    def _before(self, number: int, found: Sequence[Tensor], gradient: Tensor) -> Tensor:
        """The gradient for a linear layer's result, from that for what follows it."""
        output = found[number + 1]
        if number < len(self._layers) - 1:
            # In place: only this chain has made this gradient.
            torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)
            return gradient
        if not self._bounded:
            return gradient
        before: Tensor = torch.ops.aten.tanh_backward.default(gradient, output)
        return before


def squares_gradient(values: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """The gradient of ``weight`` times the mean squared difference, for the values."""
    gradient: Tensor = torch.ops.aten.mse_loss_backward.default(weight, values, targets, MEAN)
    return gradient


class Adam:
    """The steps of ``torch.optim.Adam(fused=True)`` on a chain's parameters, without torch's checks before each step.

    Args:
        chain: The chain.
        settings: The optimiser whose rate, betas and epsilon are used; its own state stays as it is.
    """

    def __init__(self, chain: Chain, settings: torch.optim.Optimizer) -> None:
        (self._settings,) = settings.param_groups
        self._vector = chain.parameters.vector
        self._mean, self._square = torch.zeros_like(self._vector), torch.zeros_like(self._vector)
        self._steps = torch.zeros(())

    def step(self, gradient: Tensor) -> None:
        """Takes one step with the gradient of the parameters' vector."""
        given = self._settings
        self._steps += 1
        torch._fused_adam_(
            [self._vector],
            [gradient],
            [self._mean],
            [self._square],
            [],
            [self._steps],
            amsgrad=given["amsgrad"],
            lr=given["lr"],
            beta1=given["betas"][0],
            beta2=given["betas"][1],
            weight_decay=given["weight_decay"],
            eps=given["eps"],
            maximize=given["maximize"],
        )
