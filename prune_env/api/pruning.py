"""`prune`: prunes a network in memory, by the same steps as the commands."""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from prune_env.api.progress import Shown, shown
from prune_env.api.result import PruningResult
from prune_env.common.copying import copied
from prune_env.common.layers import unwrapped
from prune_env.common.randomness import global_randomness
from prune_env.config import RunConfig
from prune_env.config.trust import EVERYTHING
from prune_env.data import SOURCES, Given, GivenSource, given_source
from prune_env.env.loading import check_names
from prune_env.models import DETECTORS, MODELS, taking_batches
from prune_env.report.whole_runs import finetune_with_report, finish_with_report
from prune_env.runs.finetuning import FinishedTraining, start_finetuning
from prune_env.runs.finishing import FinishedSearch
from prune_env.runs.run_directory import RunDirectory
from prune_env.runs.searching import start_search
from prune_env.search.episode import Episode

REWARD_IMAGES, CALIBRATION_IMAGES = 1000, 256
"""Images of the reward and of the calibration set, where there are enough."""

SHARE, ENOUGH = 4, 200
"""Each of the two sets takes at most one in `SHARE` of a class's images, but `ENOUGH` of all where there are as many
[our choices]."""


def prune(
    model: nn.Module,
    train: Given,
    test: Given | None = None,
    *,
    keep: float = 0.5,
    metric: Literal["macs", "params", "latency"] = "macs",
    evaluations: int = 100,
    finetune_epochs: int = 10,
    task: str = "classification",
    name: str | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    directory: str | Path | None = None,
    force: bool = False,
    progress: bool = True,
    on_episode: Callable[[Episode], object] | None = None,
    overrides: Sequence[str] = (),
) -> PruningResult:
    """Prunes a trained network to a budget: a search for the best plan, then fine-tuning with the network as teacher.

    The network stays as it is; a copy is pruned. Images go to the network as the data set gives them, already
    normalised. The training images are split: a part rewards the search, a part calibrates batch norms, and all but the
    reward images are trained on. No search sees the test images. Random generators and torch's threads are left as they
    were.

    Args:
        model: The trained network. In eval mode it takes images [N, C, H, W] and returns scores [N, classes].
        train: The images that it was trained on, or others like them, with labels from 0 on: a ``Dataset``, a
            ``DataLoader`` (its order does not count), or a pair of tensors. Random augmentation is drawn anew in every
            epoch of the fine-tuning.
        test: Images that it was not trained on, in the same forms; None leaves the result untested.
        keep: Share of the dense cost that may remain, in (0, 1].
        metric: The cost: multiply-adds, parameters, or seconds on this machine.
        evaluations: Number of plans that the search measures: one for each unit that can be cut, then the search's own.
        finetune_epochs: Passes over the training images after the cut, 0 or more.
        task: classification, or detection, with a detector by torchvision's interface and targets with boxes.
        name: The network's name in plan, tables and report; None for its class.
        device: Where to measure and to train; None for the network's own device.
        seed: Seed of everything random.
        directory: Where to leave the run with all its files, a folder that does not exist; None for none.
        force: Whether to go on with a network that is no better than chance or does not know these images.
        progress: Whether to show a bar, or plain lines where there is no terminal and no notebook.
        on_episode: Called with each plan of the search; returning False stops the search.
        overrides: Further settings as on the command line, such as ``["agent.name=cma", "criterion.name=l1"]``.

    Returns:
        The pruned network with its plan and measurements.

    Raises:
        DoubtfulNetworkError: If the network's quality on the images is near chance, or new batch-norm statistics alone
            would make it far better.
        DataError: If the images have another form than the library takes.
        ModelError: If the network does not take the images, or nothing of it can be cut.
        BudgetError: If the budget cannot be met; names the reachable shares.
        ConfigError: If a setting is unknown or out of range.
        RunError: If the directory exists.

    Example:
        >>> import prune_env
        >>> result = prune_env.prune(model, train_loader, test_loader, keep=0.5)  # doctest: +SKIP
        >>> smaller = result.model  # doctest: +SKIP
    """
    kept = TemporaryDirectory(prefix="prune_env-") if directory is None else None
    try:
        result = _pruned(
            unwrapped(model),
            train,
            test,
            Path(kept.name) / "run" if kept is not None else Path(str(directory)),
            {
                "seed": seed,
                "run": {"device": _named(device or _device_of(model)), "force": force},
                "task": {"name": task},
                "model": {"name": name or type(unwrapped(model)).__name__},
                "budget": {"keep": keep, "metric": metric},
                "search": {"evaluations": evaluations},
                "finetune": {"epochs": max(1, finetune_epochs)},
            },
            overrides,
            finetune_epochs > 0,
            progress,
            on_episode,
        )
    except BaseException:
        if kept is not None:
            kept.cleanup()
        raise
    if kept is not None:
        # The run lives as long as its result.
        weakref.finalize(result, kept.cleanup)
    return result


def _pruned(
    dense: nn.Module,
    train: Given,
    test: Given | None,
    folder: Path,
    document: dict[str, Any],
    overrides: Sequence[str],
    finetune: bool,
    progress: bool,
    on_episode: Callable[[Episode], object] | None,
) -> PruningResult:
    """Searches and fine-tunes in a folder, and leaves random generators and threads as they were."""
    detecting = document["task"]["name"] == "detection"
    evaluations = document["search"]["evaluations"]
    # Mistakes in settings are told before any image is read.
    check_names(_settings(document, {"name": "given"}, overrides))
    RunDirectory.check_free(folder, "directory=...")
    with ExitStack() as stack:
        stack.enter_context(global_randomness(document["seed"]))
        stack.enter_context(_same_threads())
        show = stack.enter_context(shown(progress, evaluations))
        source = given_source(train, test, detecting, show.on_progress)
        settings = _settings(document, {"name": source.name, **_sizes(source)}, overrides)
        stack.enter_context(_lent(settings.model.name, dense, detecting))
        stack.enter_context(SOURCES.lending(settings.data.name, lambda _path, _size: source))
        call = f"prune_env.prune(model, train, test, keep={settings.budget.keep}, evaluations={evaluations}, ...)"
        finished = _searched(settings, folder, show, on_episode, call)
        tuned = _finetuned(finished.search.run, show) if finetune else None
        return PruningResult.of(finished, tuned, dense, _device_of(dense))


def _settings(document: Mapping[str, Any], data: Mapping[str, Any], overrides: Sequence[str]) -> RunConfig:
    return RunConfig.from_mapping({**document, "data": data}, overrides, "the arguments of prune_env.prune")


@contextmanager
def _lent(name: str, dense: nn.Module, detecting: bool) -> Iterator[None]:
    """Lets settings name the user's own network: each load gives a copy of it."""
    plain = copied(dense).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)

    def build(**_: Any) -> nn.Module:
        return taking_batches(copied(plain)) if detecting else copied(plain)

    with (DETECTORS if detecting else MODELS).lending(name, build):
        yield


def _searched(
    settings: RunConfig, folder: Path, show: Shown, on_episode: Callable[[Episode], object] | None, call: str
) -> FinishedSearch:
    def hear(episode: Episode) -> object:
        show.on_episode(episode)
        return None if on_episode is None else on_episode(episode)

    search = start_search(settings, folder, show.on_progress, show.on_dense)
    return finish_with_report(search, show.on_trial, hear, call)


def _finetuned(run: RunDirectory, show: Shown) -> FinishedTraining:
    listener = show.training()
    # This process wrote the run.
    tuning = start_finetuning(run, listener=listener, trust=EVERYTHING)
    finished = finetune_with_report(tuning, listener)
    assert finished is not None
    return finished


def _sizes(source: GivenSource) -> dict[str, int]:
    """The sizes of the reward and the calibration set: the usual ones, or fewer where classes have few images."""
    targets = source.targets("train")
    most = len(targets) // SHARE
    if isinstance(targets, np.ndarray):
        counts = np.unique(targets, return_counts=True)[1]
        # Sets are class-balanced, so that the smallest class sets the limit.
        most = max(int(counts.min()) // SHARE * len(counts), min(most, ENOUGH))
    most = max(1, most)
    return {"reward_images": min(REWARD_IMAGES, most), "calibration_images": min(CALIBRATION_IMAGES, most)}


def _device_of(model: nn.Module) -> torch.device:
    tensors = [*model.parameters(), *model.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def _named(device: str | torch.device) -> str:
    """A device as settings name it; what they do not know, such as mps, computes on the CPU."""
    return str(device) if torch.device(device).type in ("cpu", "cuda") else "cpu"


@contextmanager
def _same_threads() -> Iterator[None]:
    """Puts torch's number of threads back at the end."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
