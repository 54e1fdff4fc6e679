"""A fast CPU forward pass for batch norms over feature maps with few channels.

torch loops over the channels of one pixel of a channels-last map at a time. With ten channels left after a cut, this is
several times slower than the memory allows. Here several neighbouring pixels form one row of numbers. Allocating an
output as large as the map costs more than writing it, so a map that nothing else reads is overwritten.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BatchNorm = nn.modules.batchnorm._BatchNorm

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""Batch norms with torch's own forward pass. Subclasses do not count, because they may override it."""

COLUMNS = 256
"""The least length of a row in numbers; a row never exceeds one line of the map."""


def is_plain(norm: nn.Module) -> bool:
    """Whether the fast pass can replace the module: torch's own forward pass, with running statistics, on a CPU."""
    known = type(norm) in PLAIN and "forward" not in vars(norm)
    mean = norm._buffers.get("running_mean")
    return known and mean is not None and mean.device.type == "cpu"


class Measuring:
    """A batch norm's forward pass in training mode that averages over batches, as with ``momentum=None``.

    Args:
        norm: The batch norm whose running statistics are set.
        alone: Whether nothing else reads the input. If true, the output overwrites the input.
    """

    def __init__(self, norm: BatchNorm, alone: bool) -> None:
        self.norm = norm
        self.alone = alone
        self.seen = 0

    def __call__(self, maps: Tensor) -> Tensor:
        """Normalises with the batch's statistics and adds them to the running averages.

        Raises:
            ValueError: If the batch has only one value per channel.
        """
        norm = self.norm
        norm._check_input_dim(maps)
        count = maps.numel() // maps.shape[1]
        if count < 2:
            raise ValueError("Expected more than 1 value per channel")
        mean, variance = _statistics(maps)
        self.seen += 1
        assert norm.running_mean is not None
        assert norm.running_var is not None
        unbiased = variance * (count / (count - 1))
        norm.running_mean.lerp_(mean, 1 / self.seen)
        norm.running_var.lerp_(unbiased, 1 / self.seen)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        if self.alone:
            return _overwritten(maps, _repeated(norm, mean, variance, _positions(maps)), norm.eps)
        return F.batch_norm(maps, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)


class Overwriting:
    """A batch norm's forward pass in eval mode that overwrites its input.

    Args:
        norm: The batch norm. Nothing else may read its input, and its tensors must not change after the first pass.
    """

    def __init__(self, norm: BatchNorm) -> None:
        self.norm = norm
        self._tensors: dict[int, tuple[Tensor | None, ...]] = {}

    def __call__(self, maps: Tensor) -> Tensor:
        """Normalises in place."""
        norm, positions = self.norm, _positions(maps)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        if positions not in self._tensors:
            self._tensors[positions] = _repeated(norm, norm.running_mean, norm.running_var, positions)
        return _overwritten(maps, self._tensors[positions], norm.eps)


def _positions(maps: Tensor) -> int:
    """Returns how many neighbouring pixels form one row; 1 if the map is not channels-last."""
    if maps.ndim != 4 or not maps.is_contiguous(memory_format=torch.channels_last):
        return 1
    channels, width = maps.shape[1], maps.shape[3]
    return next((count for count in range(1, width) if width % count == 0 and count * channels >= COLUMNS), width)


def _rows(maps: Tensor, positions: int) -> Tensor:
    """Returns the map itself for one position, else its rows [pixels / positions, positions * channels]."""
    return maps if positions == 1 else maps.permute(0, 2, 3, 1).reshape(-1, positions * maps.shape[1])


def _statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean and the biased variance of each channel, float32, each [C]."""
    channels = maps.shape[1]
    rows = _rows(maps, _positions(maps))
    # With float32 running statistics, torch sums bfloat16 maps in float32 and returns float32.
    unused = torch.zeros(rows.shape[1])
    mean, variance = torch.batch_norm_update_stats(rows, unused, unused, 0.0)
    if len(mean) == channels:
        return mean, variance
    spread, middle = torch.var_mean(mean.view(-1, channels), dim=0, correction=0)
    return middle, variance.view(-1, channels).mean(0).add_(spread)


def _repeated(norm: BatchNorm, mean: Tensor, variance: Tensor, positions: int) -> tuple[Tensor | None, ...]:
    """Repeats weight, bias, mean and variance for every position."""
    if not norm.affine:
        return None, None, mean.repeat(positions), variance.repeat(positions)
    return torch.stack((norm.weight, norm.bias, mean, variance)).repeat(1, positions).unbind()


def _overwritten(maps: Tensor, tensors: tuple[Tensor | None, ...], eps: float) -> Tensor:
    mean = tensors[2]
    assert mean is not None
    rows = _rows(maps, len(mean) // maps.shape[1])
    # In eval mode torch saves no statistics, but the call requires tensors for them.
    torch.ops.aten.native_batch_norm.out(
        rows, *tensors, False, 0.0, eps, out=rows, save_mean=_NOTHING[0], save_invstd=_NOTHING[1]
    )
    return maps


_NOTHING = torch.empty(0), torch.empty(0)
