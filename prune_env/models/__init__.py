"""Networks by name: our own for CIFAR and digits, torchvision's, timm's, or the user's own callable.

Importing this package registers our own networks.
"""

from prune_env.models import cifar_resnet, digits, mobilenet, vgg
from prune_env.models.build import build_model, known_models
from prune_env.models.detectors import (
    DETECTORS,
    build_detector,
    check_pretrained_names,
    detector_summaries,
    taking_batches,
)
from prune_env.models.listing import model_summaries
from prune_env.models.own_preprocessing import own_preprocessing
from prune_env.models.registry import MODELS, register_model
from prune_env.models.shortcut import ZeroPadShortcut
from prune_env.models.weights import load_weights, save_weights, weights_bytes

__all__ = [
    "DETECTORS",
    "MODELS",
    "ZeroPadShortcut",
    "build_detector",
    "build_model",
    "check_pretrained_names",
    "cifar_resnet",
    "detector_summaries",
    "digits",
    "known_models",
    "load_weights",
    "mobilenet",
    "model_summaries",
    "own_preprocessing",
    "register_model",
    "save_weights",
    "taking_batches",
    "vgg",
    "weights_bytes",
]
