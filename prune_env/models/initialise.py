"""The initialisation that our own networks share."""

from torch import nn


def initialise_he(model: nn.Module) -> None:
    """Draw conv and linear weights as He et al. 2015 do for ReLU networks (arXiv:1502.01852).

    Args:
        model: The network, changed in place: biases become zero, BN layers keep torch's initial values.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out" if isinstance(module, nn.Conv2d) else "fan_in")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
