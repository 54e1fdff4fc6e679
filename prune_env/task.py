"""The task: one network, one budget, and all that a search needs to try widths and hear what they are worth."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from prune_env.budget import Budget
from prune_env.config import RunConfig
from prune_env.criteria import known_criteria, score_channels
from prune_env.data import Splits, load_images, load_source, make_splits
from prune_env.errors import ConfigError, EvaluationError, ModelError, suggest
from prune_env.evaluate import Evaluator, GiveUp, check_output
from prune_env.form import Form
from prune_env.form_choice import FormChoice, FormChooser
from prune_env.models import build_model
from prune_env.observation import Evidence, Observer
from prune_env.plan import PlannedBudget, PruningPlan
from prune_env.racing import Race
from prune_env.recover import train
from prune_env.sensitivity import SensitivityReport, feature_map_ranks, find_sensitive_layers
from prune_env.unit import IntArray
from prune_env.walk import LayerWalk, Scores
from rewards import Outcome, Reward, RewardError, make_reward


@dataclass(frozen=True)
class Trial:
    """One set of widths tried; two trials are equal if the same plan came to the same, whenever that was.

    Attributes:
        number: How many trials came before it in this task.
        kind: Who proposed it: ``probe`` for the evidence, ``uniform``, or the search's name.
        plan: The plan.
        outcome: What was measured.
        reward: What it is worth.
        cached: Whether the same plan had been measured before.
        seconds: Wall-clock seconds that it took.
    """

    number: int = field(compare=False)
    kind: str
    plan: PruningPlan
    outcome: Outcome
    reward: float
    cached: bool = field(compare=False)
    seconds: float = field(compare=False)


@dataclass
class PruningTask:
    """A network with a budget, an evaluator and a reward; every search runs against one of these.

    Attributes:
        walk: The network's walk, sensitive units protected.
        budget: What the plan may cost.
        evaluator: Measures plans.
        scores: One score per channel of each unit.
        reward: What an outcome is worth.
        report: The evidence for the sensitive layers; None if they were not looked for.
        input_size: Height and width of the network's input in pixels.
        racing: Whether a plan is given up within its evaluation once it cannot become its search's best.
        form_choice: How the evaluator's form came about; None where it was not chosen.
        probe_keep: The keep ratio of the probes that show how far the loss rises; None for no probes.
        provenance: Facts that every plan records.
        listeners: Called with each new trial.
        trials: How many trials there were so far.
        baseline: The dense network's outcome.
    """

    walk: LayerWalk
    budget: Budget
    evaluator: Evaluator
    scores: Scores
    reward: Reward
    report: SensitivityReport | None
    input_size: tuple[int, int]
    probe_keep: float | None = None
    racing: bool = False
    form_choice: FormChoice | None = None
    provenance: dict[str, str | int | float | None] = field(default_factory=dict)
    listeners: list[Callable[[Trial], None]] = field(default_factory=list)
    trials: int = 0

    def __post_init__(self) -> None:
        self.baseline = self.evaluator.dense()
        self._race = Race(self.reward, self.baseline, self.evaluator.images, len(self.evaluator.reward) - 1)
        self._best: dict[str, float] = {}

    @property
    def probes(self) -> int:
        """How many trials the evidence for the observations takes: one for each free unit, or none."""
        return len(self.budget.units) if self.probe_keep is not None else 0

    @cached_property
    def observer(self) -> Observer:
        """Builds observations; made, and the units probed, when it is first asked for."""
        ranks = self.report.by_unit() if self.report else {}
        evidence = Evidence(ranks, self.loss_rises if self.probe_keep is not None else {})
        return Observer(self.walk, self.budget, evidence, self.input_size)

    def attempt(self, widths: IntArray, kind: str) -> Trial:
        """Measures one set of widths.

        Args:
            widths: int64 [free units].
            kind: Who proposes it.

        Returns:
            The trial, after the listeners have heard of it.

        Raises:
            EvaluationError: If the accuracy, the loss or the reward is not finite.
        """
        started, hits = time.perf_counter(), self.evaluator.hits
        plan = self.plan(widths)
        outcome = self.evaluator.evaluate(plan, self._give_up(plan, kind))
        try:
            reward = self.reward(outcome, self.baseline)
        except RewardError as error:
            raise EvaluationError(str(error)) from None
        trial = Trial(
            number=self.trials,
            kind=kind,
            plan=plan,
            outcome=outcome,
            reward=reward,
            cached=self.evaluator.hits > hits,
            seconds=time.perf_counter() - started,
        )
        self.trials += 1
        if outcome.complete:
            self._best[kind] = max(reward, self._best.get(kind, reward))
        for listener in self.listeners:
            listener(trial)
        return trial

    def _give_up(self, plan: PruningPlan, kind: str) -> GiveUp | None:
        """Probes are looked at to the end: they are for the loss, and one that cuts little tells nothing of plans."""
        if not self.racing or kind == "probe" or kind not in self._best:
            return None
        return self._race.against(self._best[kind], plan.costs.macs, plan.costs.params)

    def plan(self, widths: IntArray) -> PruningPlan:
        """The plan that keeps the best-scored channels at these widths [free units]."""
        budget = PlannedBudget(
            metric=self.budget.metric,
            keep=self.budget.keep,
            achieved=min(1.0, self.budget.form.cost(widths) / self.budget.dense),
        )
        return self.walk.plan(self.budget.names(widths), self.scores, budget, self.provenance)

    @cached_property
    def loss_rises(self) -> dict[str, float]:
        """How far the loss rises, in nats, when each free unit alone is cut to ``probe_keep``; one trial a unit."""
        rises = {}
        for number, unit in enumerate(self.budget.units):
            widths = self.budget.channels.copy()
            widths[number] = self.budget.allowed(number, (self.probe_keep or 0.0) * unit.channels)
            rises[unit.name] = self.attempt(widths, "probe").outcome.loss - self.baseline.loss
        return rises


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
    source = splits.source
    model = build_model(
        config.model.name, source.classes, source.channels, config.model.weights, config.model.arguments
    )
    check_output(model, load_images(source, "train", splits.reward_indices[:1]).images, source.classes)
    if accept is not None:
        accept(model)
    if config.model.weights is None and config.pretrain.epochs:
        train(model, splits, config.pretrain, config.seed, device_of(config), on_epoch)
    return model.eval()


def load_splits(config: RunConfig) -> Splits:
    """The data that a configuration names, split by index."""
    data = config.data
    source = load_source(data.name, data.path, data.image_size)
    return make_splits(source, data.reward_images, data.calibration_images, config.seed, data.test_images)


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
    """Refuses a criterion, a reward or a device that does not exist, before any time is spent.

    Raises:
        ConfigError: If there is no such criterion, or racing does not go with the reward.
        RewardError: If there is no such reward, or its settings do not fit.
        ModelError: If there is no such device.
    """
    if config.search.racing and ":" in config.reward.name:
        raise ConfigError(
            f"search.racing: true given with the reward {config.reward.name!r}; allowed with the library's own "
            "rewards, which do not look at the loss and do not fall where accuracy rises. Set search.racing to false."
        )
    if config.criterion.name not in known_criteria():
        offer = suggest(config.criterion.name, known_criteria())
        raise ConfigError(f"criterion.name: there is no criterion {config.criterion.name!r}; {offer}.")
    make_reward(config.reward.name, config.reward.settings)
    device_of(config)


def trace(config: RunConfig, splits: Splits, model: nn.Module) -> LayerWalk:
    """The walk of a network on images of the data's size, with what the user protects."""
    image = load_images(splits.source, "train", splits.reward_indices[:1]).images
    return LayerWalk.trace(model, image, config.env.protect)


def make_evaluator(config: RunConfig, splits: Splits, walk: LayerWalk) -> Evaluator:
    """The evaluator of a walk on the configuration's reward and calibration set; nothing is measured for it."""
    return Evaluator(walk, splits.reward(), splits.calibration(), usual_form(config), device_of(config))


def usual_form(config: RunConfig) -> Form:
    """The form that a configuration gives, the usual one where it leaves that open."""
    given = {key: value for key, value in config.form.model_dump().items() if value is not None}
    return Form(**{"threads": torch.get_num_threads(), **given})


def make_task(
    config: RunConfig, splits: Splits, model: nn.Module, tell: Callable[[str], None] = lambda _: None
) -> PruningTask:
    """Traces a network, protects what is sensitive, measures the fastest form, and readies it for a search.

    Args:
        config: The run's settings.
        splits: The data.
        model: The dense network with its weights.
        tell: Hears in words what is going on.

    Raises:
        BudgetError: If the budget cannot be met; before any plan is evaluated.
    """
    check_names(config)
    tell("tracing the network, proving its units and reading feature-map ranks")
    walk = trace(config, splits, model)
    report = None
    if config.sensitivity.enabled:
        report = _find_sensitive(config, splits, walk)
        walk = walk.protecting(report.sensitive)
    budget = Budget(walk, config.budget.metric, config.budget.keep, config.env.min_keep, config.env.round_to)
    reward = make_reward(config.reward.name, config.reward.settings)
    scores = score_channels(config.criterion.name, walk)
    sets, device = (splits.reward(), splits.calibration()), device_of(config)
    facts = {key: getattr(config, key).model_dump() for key in ("data", "criterion", "reward")}
    chooser = FormChooser(walk, budget, *sets, device, scores, _ranks(reward), facts, tell)
    choice = chooser.choose(config.form, config.search.evaluations)
    if choice.form.threads is not None:
        torch.set_num_threads(choice.form.threads)
    evaluator = Evaluator(walk, *sets, choice.form, device)
    return PruningTask(
        walk,
        budget,
        evaluator,
        scores,
        reward,
        report,
        input_size=splits.source.size,
        probe_keep=config.sensitivity.probe_keep,
        racing=config.search.racing,
        form_choice=choice,
        provenance={"model": config.model.name, "criterion": config.criterion.name, "seed": config.seed},
    )


def _ranks(reward: Reward) -> Callable[[Evaluator, PruningPlan], float]:
    return lambda evaluator, plan: reward(evaluator.evaluate(plan), evaluator.dense())


def _find_sensitive(config: RunConfig, splits: Splits, walk: LayerWalk) -> SensitivityReport:
    settings = config.sensitivity
    images = splits.calibration().images[: settings.images]
    ranks = feature_map_ranks(walk, images, min(64, config.form.batch or 64))
    return find_sensitive_layers(ranks, settings.rank_threshold, settings.layer_threshold, settings.top_share)
