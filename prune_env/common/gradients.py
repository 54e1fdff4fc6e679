"""Gradients of a training step, and the networks that have none."""

from torch import Tensor, nn

from prune_env.common.errors import ModelError


def refuse_frozen(model: nn.Module) -> None:
    """Refuses a network in which no parameter can be trained.

    Raises:
        ModelError: If ``requires_grad`` is False for every parameter, or there is no parameter.
    """
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if len(frozen) == len(list(model.parameters())):
        given = f"requires_grad is False for all {len(frozen)}, such as {frozen[0]!r}" if frozen else "it has none"
        raise ModelError(
            f"No parameter of the network can be trained: {given}. Call model.requires_grad_(True) in the function "
            "that builds the network, or call it for the layers to train."
        )


def backward(loss: Tensor) -> None:
    """Computes the gradients of a training step's loss, a scalar.

    Raises:
        ModelError: If the loss depends on no parameter that can be trained.
    """
    if not loss.requires_grad:
        raise ModelError(
            "No gradient reaches a parameter of the network: the loss depends on none with requires_grad=True. Remove "
            "torch.no_grad(), inference_mode() and detach() from the way to the scores, or call requires_grad_(True) "
            "for the layers to train."
        )
    loss.backward()
