"""Batch-norm statistics of a cut network, measured anew (adaptive batch norm, Li et al., ECCV 2020)."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from prune_env.batch_norm.fast_norm import BatchNorm, Measuring, is_plain
from prune_env.common.errors import DataError


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
