"""Images for timing a network."""

import torch
from torch import Tensor

from prune_env.data import Splits, load_images


def batch_to_time(
    splits: Splits, count: int, device: torch.device, layout: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """A batch for timing, [count, C, H, W]; repeats images if there are fewer, because content does not matter."""
    images = load_images(splits.source, "train", splits.reward_indices[:count]).images
    images = images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
    return images.to(device).contiguous(memory_format=layout)
