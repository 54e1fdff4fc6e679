"""Whether a network's output is that of a classifier."""

import torch
from torch import Tensor, nn

from prune_env.common.errors import ModelError
from prune_env.common.modes import in_eval_mode
from prune_env.walk.tracing import does_not_run


def check_output(model: nn.Module, image: Tensor, classes: int) -> None:
    """Refuses a network that is no classifier of this many classes; it is run once and left as it is.

    Args:
        model: The network.
        image: One image [1, C, H, W].
        classes: How many classes the data have.

    Raises:
        ModelError: If the network does not run on the image, or its output is not [1, classes or more].
    """
    with in_eval_mode(model), torch.no_grad():
        try:
            output = model(image)
        except Exception as error:  # the user's own code may raise anything
            raise does_not_run(error, image) from error
    check_logits(output, len(image), classes)


def check_logits(output: object, count: int, classes: int) -> None:
    """Refuses what is not one score for each image and class; more scores than classes are fine."""
    shape = list(output.shape) if isinstance(output, Tensor) else None
    if shape is None or len(shape) != 2 or shape[0] != count or shape[1] < classes:
        found = f"a {type(output).__name__}" if shape is None else f"of shape {shape}"
        raise ModelError(
            f"The network's output is {found}; a tensor of shape [{count}, {classes}] is needed for "
            f"{count} image{'s' * (count != 1)} of {classes} classes. Give a network with one output for each class."
        )
