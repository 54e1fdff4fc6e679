"""What a network is called with: any tensors, in any nesting, by position or by keyword."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prune_env.common.errors import ModelError
from prune_env.common.nested import mapped, tensors_of


@dataclass(frozen=True)
class Example:
    """The arguments of one forward pass.

    Attributes:
        args: Arguments by position.
        keywords: Arguments by keyword.
    """

    args: tuple[Any, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def given(cls, example: Any, keywords: Mapping[str, Any] | None = None) -> "Example":
        """Reads what a user gives: a tuple holds the arguments; anything else is the only argument.

        Where all tensors are a batch of the same number of inputs, only the first input is kept.
        """
        found = cls(example if isinstance(example, tuple) else (example,), dict(keywords or {}))
        inputs = {tensor.shape[:1] for tensor in found.tensors}
        if len(inputs) == 1 and torch.Size([]) not in inputs and not _holds_lists([*found.args, found.keywords]):
            return found.mapped(lambda tensor: tensor[:1].clone())
        return found.mapped(torch.clone)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Example":
        """Returns a copy in which a function has replaced every tensor."""
        return Example(mapped(self.args, function), mapped(dict(self.keywords), function))

    def floats(self, function: Callable[[Tensor], Tensor]) -> "Example":
        """Returns a copy in which a function has replaced every floating-point tensor."""
        return self.mapped(lambda tensor: function(tensor) if tensor.is_floating_point() else tensor)

    def run(self, model: nn.Module) -> Any:
        """Calls the network on copies of the tensors, because its code may change them in place."""
        given = self.mapped(torch.clone)
        return model(*given.args, **given.keywords)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return tensors_of([*self.args, *self.keywords.values()], others=False)

    @property
    def constant(self) -> bool:
        """Whether no floating-point tensor has two different finite values."""
        finite = [t[torch.isfinite(t)] for t in self.tensors if t.is_floating_point()]
        return all(bool((t == t[:1]).all()) for t in finite)

    def noise(self, seed: int, scale: float = 1.0) -> "Example":
        """Returns noise of the mean and deviation of each tensor, times ``scale``; of deviation 1 where it is 0.

        Infinite entries, such as those of a mask, stay.
        """
        generator = torch.Generator().manual_seed(seed)

        def draw(tensor: Tensor) -> Tensor:
            noise = torch.randn(tensor.shape, generator=generator).to(tensor)
            finite = torch.isfinite(tensor)
            values = tensor[finite] if finite.any() else tensor.new_zeros(1)
            deviation = values.std(correction=0)
            drawn = scale * (values.mean() + noise * torch.where(deviation > 0, deviation, torch.ones_like(deviation)))
            return torch.where(finite, drawn, tensor)

        return self.floats(draw)

    def does_not_run(self, error: Exception) -> ModelError:
        """Builds the error for the user when the network's own forward pass fails."""
        shapes = ", ".join(str(list(tensor.shape)) for tensor in self.tensors) or "no tensor"
        return ModelError(
            f"The network does not run on an input of shape {shapes}: {type(error).__name__}: {error}. "
            "Give an example of what the network is called with: a tensor with a batch axis, a list, or a tuple of all "
            "arguments."
        )


def _holds_lists(values: Sequence[Any]) -> bool:
    """Whether a list or tuple is among some values, at any depth of mappings: its tensors may be one input each."""
    nested = [item for value in values if isinstance(value, Mapping) for item in value.values()]
    return any(isinstance(value, (list, tuple)) for value in values) or (bool(nested) and _holds_lists(nested))
