"""Every network that has a name, with a line that says what it is."""

import inspect
import re

from prune_env.models.registry import MODELS
from prune_env.models.timm_models import PREFIX, timm_builders
from prune_env.models.torchvision_models import torchvision_builders

_LINK = re.compile(r"`([^`<]*?)\s*<[^>]*>`_+")
"""A link in reStructuredText; the group is its text."""


def model_summaries() -> dict[str, str]:
    """Returns a line for each network: our own, torchvision's, then timm's where timm is installed."""
    others = {**torchvision_builders(), **{f"{PREFIX}{name}": build for name, build in timm_builders().items()}}
    lines = {name: first_sentence(build) for name, build in others.items() if name not in MODELS}
    return {**MODELS.summaries(), **lines}


def first_sentence(documented: object) -> str:
    """Returns the first paragraph of a docstring on one line, as plain text."""
    paragraph = (inspect.getdoc(documented) or "").partition("\n\n")[0]
    return _LINK.sub(r"\1", " ".join(paragraph.split()))
