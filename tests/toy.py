"""Small networks, images and problems for the tests."""

import atexit
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from zoo import Net, randomise

from prune_env import LayerWalk, RunConfig
from prune_env.budget import Budget
from prune_env.budget.latency_model import LatencyModel
from prune_env.config.granularity import GranularitySettings
from prune_env.criteria import ScoringContext, score_channels
from prune_env.data import ImageSet, ImageSource, Indices, Split, Splits
from prune_env.env.loading import load_model, load_splits
from prune_env.env.observation import FEATURES
from prune_env.env.problem import PruningProblem
from prune_env.evaluation.evaluator import Evaluator
from prune_env.evaluation.execution import ExecutionSettings
from prune_env.granularity import GranularityContext, make_granularity
from prune_env.models import save_weights
from prune_env.protection.sensitivity import SensitivityReport
from prune_env.rewards import Reward, make_reward
from prune_env.runs.run_directory import RunDirectory
from prune_env.search.policy import Policy, save_policy
from prune_env.search.registry import SEARCHES
from prune_env.tasks import make_task
from prune_env.walk.costs import Metric

SIDE = 8
COLOURS = 2
CLASSES = 4
TASK = make_task()


class ToyResNet(nn.Module):
    """A stem and two residual blocks in which no two free units have the same channels, stride and kernel.

    Free units, in forward order: ``stem`` (c), ``down`` (3c/2), ``up`` (2c, the stream of the second block, which
    ``project`` and ``out`` write too) and ``mid`` (3c). ``fc`` is the output.
    """

    def __init__(self, channels: int = 8, colours: int = COLOURS, classes: int = CLASSES, dropout: float = 0.0) -> None:
        super().__init__()
        c = channels
        self.stem = nn.Conv2d(colours, c, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(c)
        self.down = nn.Conv2d(c, 3 * c // 2, 5, 2, padding=2, bias=False)
        self.down_bn = nn.BatchNorm2d(3 * c // 2)
        self.drop = nn.Dropout(dropout)
        self.up = nn.Conv2d(3 * c // 2, 2 * c, 3, padding=1, bias=False)
        self.up_bn = nn.BatchNorm2d(2 * c)
        self.project = nn.Conv2d(c, 2 * c, 1, 2)
        self.mid = nn.Conv2d(2 * c, 3 * c, 1)
        self.out = nn.Conv2d(3 * c, 2 * c, 3, padding=1)
        self.fc = nn.Linear(2 * c, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.stem_bn(self.stem(images)))
        inner = self.drop(torch.relu(self.down_bn(self.down(x))))
        x = torch.relu(self.up_bn(self.up(inner)) + self.project(x))
        x = torch.relu(x + self.out(torch.relu(self.mid(x))))
        return self.fc(x.mean((2, 3)))


def toy_resnet(channels: int = 8, seed: int = 0, **settings: Any) -> ToyResNet:
    """A `ToyResNet` in eval mode, with batch norms whose channels differ."""
    torch.manual_seed(seed)
    return randomise(ToyResNet(channels, **settings), seed).eval()


def image_set(count: int, seed: int = 0, colours: int = COLOURS, side: int = SIDE, classes: int = CLASSES) -> ImageSet:
    """Noise with random labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, colours, side, side, generator=generator)
    return ImageSet(images, torch.randint(classes, (count,), generator=generator))


def rows_of(run: RunDirectory) -> list[dict[str, Any]]:
    """The lines of a run's ``evaluations.jsonl`` as plain values, without their digests."""
    return lines_in(run.evaluations_file)


def lines_in(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines as plain values, without their digests."""
    lines = map(json.loads, path.read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "digest"} for line in lines]


def toy_walk(model: nn.Module | None = None, protect: Mapping[str, str] | None = None) -> LayerWalk:
    """The walk of a network for `image_set`'s images; of `toy_resnet` where none is given."""
    return LayerWalk.trace(model or toy_resnet(), image_set(1).images, protect)


def toy_problem(
    walk: LayerWalk | None = None,
    *,
    metric: Metric = "macs",
    keep: float = 0.5,
    min_keep: float = 0.1,
    round_to: int = 1,
    reward: str | Reward = "error",
    reward_set: ImageSet | None = None,
    calibration: ImageSet | None = None,
    batch_size: int = 16,
    report: SensitivityReport | None = None,
    probe_keep: float | None = None,
    latency: LatencyModel | None = None,
    granularity: GranularitySettings | None = None,
    also: Mapping[Metric, float] = MappingProxyType({}),
) -> PruningProblem:
    """A problem made of its parts, without a config; no granularity measures times."""
    walk = walk or toy_walk()
    reward_set = reward_set or image_set(24, seed=1)
    calibration = calibration or image_set(16, seed=2)
    context = ScoringContext(walk, calibration)
    scores = score_channels("l1", context)
    about = GranularityContext(context, scores, min_keep, lambda: calibration.images, timed=False)
    prepared = make_granularity(granularity or GranularitySettings()).prepare(about)
    budget = Budget(walk, metric, keep, min_keep, round_to, beyond_channels=prepared.beyond_channels, also=also)
    prepared.reachable(budget)
    return PruningProblem(
        walk,
        budget,
        Evaluator(walk, reward_set, calibration, ExecutionSettings(batch=batch_size)),
        scores,
        make_reward(reward) if isinstance(reward, str) else reward,
        report,
        input_size=(int(reward_set.images.shape[2]), int(reward_set.images.shape[3])),
        context=context,
        granularity=prepared,
        latency=latency,
        probe_keep=probe_keep,
    )


class Tally(list[Any]):
    """A list that deep copies of its owner share, so that copies of a network can be watched."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class Watched(ToyResNet):
    """A `ToyResNet` that notes for each forward pass the batch size and the channels that its stem really has."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.passes: Tally = Tally()

    def forward(self, images: Tensor) -> Tensor:
        self.passes.append((len(images), self.stem.weight.shape[0]))
        return super().forward(images)


def planted_net() -> Net:
    """A network that classifies `planted_images` by one unit, while another has no effect at all.

    Unit ``essential`` passes each colour on in its own channel. ``read`` multiplies the 8 channels of ``useless`` by
    zero.
    """

    def forward(net: Net, images: Tensor) -> Tensor:
        both = torch.cat([torch.relu(net.essential(images)), torch.relu(net.useless(images))], 1)
        return net.fc(torch.relu(net.read(both)).mean((2, 3)))

    torch.manual_seed(0)
    net = Net(
        forward,
        essential=nn.Conv2d(CLASSES, CLASSES, 1),
        useless=nn.Conv2d(CLASSES, 8, 3, padding=1),
        read=nn.Conv2d(CLASSES + 8, CLASSES, 1),
        fc=nn.Linear(CLASSES, CLASSES),
    )
    with torch.no_grad():
        for module in (net.essential, net.read, net.fc):
            module.weight.zero_()
            module.bias.zero_()
            module.weight[:, :CLASSES] = torch.eye(CLASSES).reshape(module.weight[:, :CLASSES].shape)
        net.fc.weight.mul_(4)
    return net.eval()


def planted_images(count: int, seed: int = 0) -> ImageSet:
    """Images whose class is the one bright colour."""
    images = image_set(count, seed, colours=CLASSES)
    noise = 0.1 * images.images
    noise[torch.arange(count), images.targets] += 1.0
    return ImageSet(noise, images.targets)


DIGITS: dict[str, Any] = {
    "run": {"force": True},
    "model": {"name": "digits_resnet"},
    "data": {"name": "digits", "reward_images": 40, "calibration_images": 40, "test_images": 20},
    "execution": {"layout": "channels_last", "dtype": "float32", "folded": True, "batch": 64, "threads": 1},
}
"""The smallest config of a real problem: an untrained network on real images."""


def digits_config(*overrides: str) -> RunConfig:
    return RunConfig.from_mapping(DIGITS, overrides)


@cache
def digits_splits() -> Splits:
    return load_splits(digits_config())


@cache
def trained_digits() -> nn.Module:
    """The small network for the digits after two epochs of training; not to be changed."""
    config = digits_config("pretrain.epochs=2")
    return load_model(config, load_splits(config))


def digits_file(folder: Path, *overrides: str) -> Path:
    """A configuration file of the trained network, on the CPU."""
    save_weights(trained_digits(), folder / "dense.safetensors")
    settings = digits_config(f"model.weights={folder / 'dense.safetensors'}", "run.device=cpu", *overrides)
    (folder / "digits.yaml").write_text(settings.dump_yaml())
    return folder / "digits.yaml"


@cache
def toy_policy(seed: int = 7) -> Path:
    """The file of a policy with one hidden layer of 8 and random weights, for whole channels."""
    torch.manual_seed(seed)
    actor = nn.Sequential(nn.Linear(len(FEATURES), 8), nn.ReLU(), nn.Linear(8, 1), nn.Tanh())
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "policy.safetensors"
    save_policy(Policy(actor, "share", "channel"), path)
    return path


def policy_for(search: str) -> list[str]:
    """The overrides without which a search does not start."""
    return [f"agent.policy={toy_policy()}"] if SEARCHES.find(search).needs_policy else []


class WatchedSource:
    """An image source that notes which images are asked for."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.loaded: dict[str, list[int]] = {"train": [], "test": []}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def load(self, split: Split, indices: Indices) -> Tensor:
        self.loaded[split] += indices.tolist()
        return self._source.load(split, indices)


def random_plans(problem: PruningProblem, count: int, seed: int = 0) -> list[np.ndarray]:
    """Random widths for the free units of a problem, whatever the budget."""
    generator = np.random.default_rng(seed)
    return [generator.integers(1, problem.budget.channels + 1) for _ in range(count)]


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """The rank correlation of two rows of numbers."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


HALF = {"stem": 4, "down": 6, "up": 8, "mid": 12}


def evaluator_of(
    walk: LayerWalk, reward: ImageSet | None = None, calibration: ImageSet | None = None, batch_size: int = 16
) -> Evaluator:
    return Evaluator(
        walk, reward or image_set(24, seed=1), calibration or image_set(16, seed=2), ExecutionSettings(batch=batch_size)
    )


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if "running" in name}
