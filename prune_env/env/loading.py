"""What a configuration names: data, network, device; and whether all of its names exist."""

from collections.abc import Callable

import torch
from torch import nn

from prune_env.common.errors import ConfigError, ModelError
from prune_env.config import RunConfig
from prune_env.config.granularity import GRANULARITIES
from prune_env.criteria import criterion_named
from prune_env.data import Splits, load_images, make_splits
from prune_env.recover import train_network
from prune_env.repair import REPAIRS
from prune_env.tasks import make_task, quality_of
from rewards import make_reward, needs_latency


def load_model(
    config: RunConfig,
    splits: Splits,
    on_epoch: Callable[[int, float], None] | None = None,
    accept: Callable[[nn.Module], object] | None = None,
) -> nn.Module:
    """The network that a configuration names, trained on the spot where it asks for that.

    Args:
        config: The run's settings.
        splits: The data; training on the spot uses only images that no other set holds.
        on_epoch: Called with the epoch's number and its mean loss.
        accept: Called with the network before any training; may refuse it by an error of its own.
    """
    torch.manual_seed(config.seed)
    task, image = make_task(config.task), load_images(splits.source, "train", splits.reward_indices[:1]).images
    model = task.build_model(config.model, splits.source, image)
    if accept is not None:
        accept(model)
    if config.model.weights is None and config.pretrain.epochs:
        train_network(model, splits, config.pretrain, config.seed, device_of(config), task, on_epoch)
    return model.eval()


def load_splits(config: RunConfig) -> Splits:
    """The data that a configuration names, split by index."""
    data, task = config.data, make_task(config.task)
    return make_splits(
        task.load(data), data.reward_images, data.calibration_images, config.seed, data.test_images, task.stratum
    )


def device_of(config: RunConfig) -> torch.device:
    """The device that a configuration asks for.

    Raises:
        ModelError: If it asks for a GPU and there is none.
    """
    wanted = config.run.device
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"run.device: {wanted} given, but this machine has no usable GPU. Give cpu or auto.")
    device = torch.device(wanted)
    if device.index is not None and device.index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ModelError(f"run.device: {wanted} given, but this machine has {count} GPUs, cuda:0 to cuda:{count - 1}.")
    return device


def check_names(config: RunConfig) -> None:
    """Refuses a criterion, a repair, a reward or a device that does not exist, before any time is spent.

    Raises:
        ConfigError: If there is no such criterion or repair, or racing does not go with the reward or the task.
        RewardError: If there is no such reward, or its settings do not fit.
        ModelError: If there is no such device.
    """
    if config.search.racing and ":" in config.reward.name:
        raise ConfigError(
            f"search.racing: true given with the reward {config.reward.name!r}; allowed with the library's own "
            "rewards, which do not look at the loss and do not fall where quality rises. Set search.racing to false."
        )
    quality = quality_of(make_task(config.task))
    if config.search.racing and not quality.counts:
        raise ConfigError(
            f"search.racing: true given with task.name={config.task.name}, whose quality, {quality.name}, is not the "
            "share of images that are right; only such a share can be raced. Set search.racing to false."
        )
    reward = make_reward(config.reward.name, config.reward.settings)
    timed = config.budget.metric == "latency" or needs_latency(reward)
    if timed and not GRANULARITIES.find(config.granularity.name).supports_latency:
        raise ConfigError(
            f"granularity.name: {config.granularity.name} given with a budget or reward of latency, whose formula "
            "knows channels alone. Count macs or params, or give granularity.name=channel."
        )
    criterion_named(config.criterion.name)
    REPAIRS.find(config.repair.name)
    device_of(config)
