"""Fine-tuning on few images: smaller batches and more passes, so that an epoch has enough steps [our choice]."""

from prune_env.config.training import FinetuneSection

LEAST_STEPS = 32
"""Steps that an epoch has at least."""

LEAST_BATCH = 16
"""Images of a batch below which the set is passed over several times an epoch instead."""


def for_small_set(settings: FinetuneSection, images: int, processes: int = 1) -> tuple[FinetuneSection, int | None]:
    """Returns the settings with a smaller batch where the set needs it, and the steps of an epoch.

    Args:
        settings: The settings; ``batch_size`` is the largest batch.
        images: Number of training images.
        processes: Processes that share a batch evenly.

    Returns:
        The settings, and the number of steps of an epoch; None for one pass over the images.
    """
    if images >= LEAST_STEPS * settings.batch_size:
        return settings, None
    batch = max(LEAST_BATCH, images // LEAST_STEPS) // processes * processes
    batch = min(settings.batch_size, batch or settings.batch_size)
    return settings.model_copy(update={"batch_size": batch}), max(LEAST_STEPS, images // batch)
