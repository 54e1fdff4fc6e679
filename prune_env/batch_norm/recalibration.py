"""Recalibrates the batch-norm statistics of a cut network (adaptive batch norm, Li et al., ECCV 2020)."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from prune_env.batch_norm.fast_norm import BatchNorm, Measuring, is_plain
from prune_env.common.errors import DataError


def recalibrate(model: nn.Module, batches: Iterable[Tensor], sole_readers: Collection[str] = ()) -> None:
    """Resets every batch norm's statistics and measures them again, in place.

    The statistics are averaged over the batches, as in training mode with ``momentum=None``. The rest of the network
    stays in eval mode, so dropout stays off.

    Args:
        model: The network, in eval mode.
        batches: Image batches [N, C, H, W], of sizes as equal as possible: all batches have the same weight. Each must
            give every batch norm more than one value per channel.
        sole_readers: Names of batch norms whose input nothing else reads. They overwrite their input.

    Raises:
        DataError: If a batch norm sees only one value per channel, which has no variance.
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
                    "A batch norm over maps of a single pixel cannot compute a variance from a batch of "
                    f"{len(images)} calibration image. Raise data.calibration_images and execution.batch to 2 or more."
                ) from None


def _norms(model: nn.Module) -> list[BatchNorm]:
    return [module for module in model.modules() if isinstance(module, BatchNorm) and module.track_running_stats]


@contextmanager
def measuring(model: nn.Module, sole_readers: Collection[str] = ()) -> Iterator[None]:
    """Within the context, batch norms normalise with each batch's statistics and average them into their own.

    Batch norms of torch's own types on a CPU get the fast forward pass; all others are in training mode.

    Args:
        model: The network, in eval mode.
        sole_readers: As for `recalibrate`.
    """
    norms = _norms(model)
    readers = {model.get_submodule(name) for name in sole_readers}
    plain = [norm for norm in norms if is_plain(norm)]
    others = [(norm, norm.momentum) for norm in norms if norm not in plain]
    try:
        for norm in plain:
            vars(norm)["forward"] = Measuring(norm, norm in readers)
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
