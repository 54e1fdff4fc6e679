"""Loads the data, the network and the device that a configuration names, and checks all of its names."""

from collections.abc import Callable

import torch
from torch import nn

from prune_env.common.errors import ConfigError, ModelError
from prune_env.config import RunConfig
from prune_env.config.granularity import GRANULARITIES
from prune_env.config.sections import DataSection
from prune_env.criteria import criterion_named
from prune_env.data import Adjustable, ImageSource, Preprocessing, Splits, adjust, load_images, make_splits
from prune_env.models import own_preprocessing
from prune_env.recover import train_network
from prune_env.recover.penalties import PENALTIES
from prune_env.repair import REPAIRS
from prune_env.rewards import make_reward, needs_latency, rises_with_quality
from prune_env.tasks import make_task, quality_of


def load_model(
    config: RunConfig,
    splits: Splits,
    on_epoch: Callable[[int, float], None] | None = None,
    accept: Callable[[nn.Module], object] | None = None,
) -> nn.Module:
    """Loads the network that a configuration names; trains it first if weights are null and ``pretrain.epochs`` > 0.

    Args:
        config: The run's settings.
        splits: The data; training uses only images outside the reward, calibration and test set.
        on_epoch: Called with the epoch's number and its mean loss.
        accept: Called with the network before any training; may raise to refuse the network.
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
    """Loads the data that a configuration names, split by index.

    The preprocessing of image files is that of the pretrained weights, if the configuration names any; its own settings
    come first.
    """
    data, task = config.data, make_task(config.task)
    own = own_preprocessing(config.model.name, config.model.weights)
    source = adjust(task.load(data), preprocessing_in(data), own)
    return make_splits(source, data.reward_images, data.calibration_images, config.seed, data.test_images, task.stratum)


def preprocessing_in(data: DataSection) -> Preprocessing:
    """The preprocessing that settings give; two sides of different lengths are no part of it."""
    sides = {data.image_size} if isinstance(data.image_size, int) else set(data.image_size or ())
    size = sides.pop() if len(sides) == 1 else None
    return Preprocessing(size, data.resize, data.interpolation, data.mean, data.std)


def with_preprocessing(config: RunConfig, source: ImageSource) -> RunConfig:
    """The settings with the preprocessing that the pretrained weights named, so that other weights get the same images.

    Args:
        config: The settings.
        source: The data set that was loaded with them.
    """
    if own_preprocessing(config.model.name, config.model.weights) is None or not isinstance(source, Adjustable):
        return config
    data = config.data.model_copy(update=source.preprocessing().given)
    return config.model_copy(update={"data": data})


def device_of(config: RunConfig) -> torch.device:
    """The device that a configuration asks for.

    Raises:
        ModelError: If the GPU does not exist.
    """
    wanted = config.run.device
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"run.device: {wanted} given, but this machine has no usable GPU. Give cpu or auto.")
    device = torch.device(wanted)
    if device.index is not None and device.index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ModelError(f"run.device: {wanted} given, but only cuda:0 to cuda:{count - 1} exist. Give one of them.")
    return device


def refuse_sparse_training(config: RunConfig) -> None:
    """Refuses settings that ask for a sparse training, where the network is used as it is loaded.

    Raises:
        ConfigError: If ``sparsify.epochs`` is above 0.
    """
    if config.sparsify.epochs:
        raise ConfigError(
            f"sparsify.epochs: {config.sparsify.epochs} given, but only `prune-env train` trains sparsely. Run it "
            "once, then give the weights that it leaves: model.weights=RUN/dense.safetensors sparsify.epochs=0."
        )


def check_names(config: RunConfig) -> None:
    """Checks the names of criterion, repair, penalty, reward and device before any work starts.

    Raises:
        ConfigError: If the criterion, repair or penalty is unknown, racing does not support the reward or the task, or
            the granularity does not support latency.
        RewardError: If the reward is unknown, or its settings are invalid.
        ModelError: If the device does not exist.
    """
    quality = quality_of(make_task(config.task))
    if config.search.racing and not quality.counts:
        raise ConfigError(
            f"search.racing: true given with task.name={config.task.name}; racing needs a quality that is the share "
            f"of correct images, and {quality.name} is not. Set search.racing to false."
        )
    reward = make_reward(config.reward.name, config.reward.settings)
    if config.search.racing and not rises_with_quality(reward):
        raise ConfigError(
            f"search.racing: true given with the reward {config.reward.name!r}, which does not say that it ignores the "
            "loss and never falls when the quality rises (rises_with_quality = True). Set search.racing to false."
        )
    timed = config.budget.metric == "latency" or needs_latency(reward)
    if timed and not GRANULARITIES.find(config.granularity.name).supports_latency:
        raise ConfigError(
            f"granularity.name: {config.granularity.name} given with a budget or reward of latency; the latency "
            "formula covers only whole channels. Give budget.metric=macs or params and a reward that does not use "
            "latency, or give granularity.name=channel."
        )
    criterion_named(config.criterion.name)
    REPAIRS.find(config.repair.name)
    PENALTIES.find(config.sparsify.penalty)
    device_of(config)
