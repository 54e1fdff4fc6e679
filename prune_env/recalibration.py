"""Batch-norm statistics of a cut network, measured anew (adaptive batch norm, Li et al., ECCV 2020)."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_env.errors import DataError

BatchNorm = nn.modules.batchnorm._BatchNorm

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""Batch norms whose forward pass is known; a subclass may do more in its own."""

COLUMNS = 256
"""A row of a channels-last map that is summed at once has at least this many numbers: few channels, many positions."""


def recalibrate(model: nn.Module, batches: Iterable[Tensor], sole_readers: Collection[str] = ()) -> None:
    """Measures every batch norm's statistics anew, in place.

    The statistics are reset and averaged over the batches, as batch norms in training mode do that with no momentum;
    the rest of the network stays in eval mode, so dropout stays off.

    Args:
        model: The network, in eval mode.
        batches: Image batches [N, C, H, W], as even as can be; more than one value a channel is needed in each.
        sole_readers: Names of batch norms that nothing else shares its input with, which are computed in place.

    Raises:
        DataError: If a batch norm sees a single value a channel, which has no variance.
    """
    norms = _norms(model)
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
    with torch.no_grad(), measuring(model, sole_readers):
        for images in batches:
            try:
                model(images)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise DataError(
                    "A batch norm over maps of a single pixel cannot tell a variance from a batch of "
                    f"{len(images)} calibration image. Raise data.calibration_images and form.batch to 2 or more."
                ) from None


def _norms(model: nn.Module) -> list[BatchNorm]:
    return [module for module in model.modules() if isinstance(module, BatchNorm) and module.track_running_stats]


@contextmanager
def measuring(model: nn.Module, sole_readers: Collection[str] = ()) -> Iterator[None]:
    """Batch norms that normalise with each batch's own statistics, and average them into theirs.

    Plain ones on a CPU have a faster forward pass meanwhile, the others are in training mode.

    Args:
        model: The network, in eval mode.
        sole_readers: As for `recalibrate`.
    """
    norms = _norms(model)
    readers = {model.get_submodule(name) for name in sole_readers}
    plain = [norm for norm in norms if _is_plain(norm)]
    others = [(norm, norm.momentum) for norm in norms if norm not in plain]
    try:
        for norm in plain:
            vars(norm)["forward"] = _Measuring(norm, norm in readers)
        for norm, _ in others:
            norm.momentum = None
            norm.train()
        yield
    finally:
        for norm in plain:
            vars(norm).pop("forward", None)
        for norm, momentum in others:
            norm.momentum = momentum
            norm.eval()


def _is_plain(norm: BatchNorm) -> bool:
    """Whether the forward pass is torch's own; statistics on a GPU are left to torch."""
    known = type(norm) in PLAIN and "forward" not in vars(norm)
    return known and norm.running_mean is not None and norm.running_mean.device.type == "cpu"


class _Measuring:
    """The forward pass of a batch norm in training mode that sums maps of few channels fast.

    torch's own passes over a channels-last map go channel by channel within a pixel, several times slower than memory
    where a cut leaves ten of them. And a fresh output as large as the map costs more than writing it does.

    Args:
        norm: The batch norm whose statistics it sets.
        alone: Whether nothing else reads the input, which is then overwritten.
    """

    def __init__(self, norm: BatchNorm, alone: bool) -> None:
        self.norm = norm
        self.alone = alone
        self.seen = 0

    def __call__(self, maps: Tensor) -> Tensor:
        """Normalises with the batch's statistics and counts them in."""
        norm = self.norm
        norm._check_input_dim(maps)
        count = maps.numel() // maps.shape[1]
        if count < 2:
            raise ValueError("Expected more than 1 value per channel")
        mean, variance = _statistics(maps)
        self.seen += 1
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.lerp_(mean, 1 / self.seen)
        norm.running_var.lerp_(variance * (count / (count - 1)), 1 / self.seen)
        if not self.alone:
            return F.batch_norm(maps, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)
        empty = mean.new_empty(0)
        return torch.ops.aten.native_batch_norm.out(  # type: ignore[no-any-return]
            maps, norm.weight, norm.bias, mean, variance, False, 0.0, norm.eps,
            out=maps, save_mean=empty, save_invstd=empty.clone(),
        )[0]  # fmt: skip


def _statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, float32, each [C]."""
    channels = maps.shape[1]
    rows = maps
    if maps.ndim == 4 and maps.is_contiguous(memory_format=torch.channels_last):
        width = maps.shape[3]
        positions = next((d for d in range(1, width) if width % d == 0 and d * channels >= COLUMNS), width)
        rows = maps.permute(0, 2, 3, 1).reshape(-1, positions * channels)
    count = rows.shape[1]
    # With running statistics of float32, torch sums bfloat16 maps in float32 and hands float32 out.
    none = torch.zeros(count, device=maps.device)
    mean, variance = torch.batch_norm_update_stats(rows, none, none.clone(), 0.0)
    mean, variance = mean.float().view(-1, channels), variance.float().view(-1, channels)
    if len(mean) == 1:
        return mean[0], variance[0]
    return mean.mean(0), variance.mean(0) + mean.var(0, unbiased=False)
