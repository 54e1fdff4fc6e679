"""Every promise that a value can break, and the sentence that says so."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from own_granularity import Middle, MiddleEdit
from toy import CLASSES, COLOURS, SIDE, ToyResNet

from prune_env.budget import Budget
from prune_env.common.errors import ConfigError
from prune_env.criteria import CRITERIA, ScoringContext, register_criterion
from prune_env.data import Batch
from prune_env.granularity import ActionDimension, Granularity, PlanBuilder
from prune_env.granularity.base import Series
from prune_env.granularity.channel import Channel, ChannelPlanBuilder
from prune_env.plan import register_edit
from prune_env.plan.edits import EDITS
from prune_env.search import SEARCHES, Search
from prune_env.search.base import HasBudget
from prune_env.surgery import Sides
from prune_env.tasks import Metric, Reduction
from prune_env.tasks.classification import Accuracy, Classification
from prune_env.testing import check_criterion, check_granularity, check_reward, check_search, check_task
from prune_env.walk import Scores
from rewards import Outcome, RewardError


def norms(context: ScoringContext) -> Scores:
    return {unit.name: context.walk.magnitudes(unit) for unit in context.walk.units}


def shifted(context: ScoringContext, by: float) -> Scores:
    return {unit: values + by for unit, values in norms(context).items()}


class TestCriterion:
    def test_that_keeps_them_passes_registered_or_not(self) -> None:
        check_criterion(norms)
        with CRITERIA.restored():
            check_criterion(register_criterion("norms")(norms))
            check_criterion("norms")

    def test_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'l1'"):
            check_criterion("L1")

    @pytest.mark.parametrize(
        ("scores", "words"),
        [
            (lambda context: {**norms(context), "0.0": np.full(6, np.nan)}, "gave unit '0.0' a score that is not fin"),
            (lambda context: {**norms(context), "0.0": np.zeros(5)}, r"gave unit '0.0' scores of shape \(5,\)"),
            (lambda _: {"0.0": np.zeros(6)}, r"gave unit '\S+' no scores"),
            (lambda context: context.walk.nothing, "AttributeError: .*'nothing'"),
        ],
    )
    def test_gives_finite_scores_to_every_channel(self, scores: Callable[[ScoringContext], Scores], words: str) -> None:
        with pytest.raises(AssertionError, match=rf"^criterion '.*lambda.*' fails on a chain .*{words}"):
            check_criterion(scores)

    def test_goes_by_no_global_generator(self) -> None:
        for draw in (lambda: np.random.rand(), lambda: float(torch.rand(()))):
            with pytest.raises(AssertionError, match=r"other scores the second time.*draw from .*context\.seed"):
                check_criterion(lambda context, draw=draw: shifted(context, draw()))  # type: ignore[misc]

    def test_keeps_nothing_between_calls(self) -> None:
        calls = itertools.count()
        with pytest.raises(AssertionError, match=r"unit '0\.0': it gives other scores the second time"):
            check_criterion(lambda context: shifted(context, next(calls)))

    def test_goes_by_the_seed_only_where_it_says_so(self) -> None:
        def seeded(context: ScoringContext) -> Scores:
            return shifted(context, context.seed)

        check_criterion(seeded)
        seeded.random = False  # type: ignore[attr-defined]
        with pytest.raises(AssertionError, match="gives other scores for another seed, and says random=False"):
            check_criterion(seeded)

    def test_looks_at_images_and_targets_only_where_it_says_so(self) -> None:
        def looking(context: ScoringContext) -> Scores:
            return shifted(context, 0.0 if context.data is None else float(context.images.sum()))

        def reading(context: ScoringContext) -> Scores:
            assert context.data is not None
            assert isinstance(context.data.targets, torch.Tensor)
            return shifted(context, float(context.data.targets[0]))

        check_criterion(looking)
        looking.needs = "images"  # type: ignore[attr-defined]
        check_criterion(looking)
        looking.needs = "weights"  # type: ignore[attr-defined]
        with pytest.raises(AssertionError, match="gives other scores without images, and says needs='weights'"):
            check_criterion(looking)
        check_criterion(reading)
        reading.needs = "images"  # type: ignore[attr-defined]
        with pytest.raises(AssertionError, match="gives other scores for other targets, and says needs='images'"):
            check_criterion(reading)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda context: context.walk.model(context.images), r"changes the network's tensor '.*running_mean'"),
            (lambda context: context.walk.model.eval(), "which modules are in training mode"),
            (lambda context: context.walk.model.requires_grad_(False), "which parameters need gradients"),
            (lambda context: context.walk.model.register_forward_hook(print), "how many hooks modules have"),
            (lambda context: context.walk.model.register_buffer("x", torch.ones(1)), "which tensors the network has"),
            (lambda context: context.images.mul_(0.0), "changes the images or targets"),
            (lambda context: context.walk.model[0][0].weight.sum().backward(), "which parameters hold gradients"),
        ],
    )
    def test_changes_nothing(self, change: Callable[[Any], object], words: str) -> None:
        def changing(context: ScoringContext) -> Scores:
            change(context)
            return norms(context)

        with pytest.raises(AssertionError, match=f"on a chain of convolutions: it .*{words}"):
            check_criterion(changing)


class TestReward:
    def test_that_keeps_them_passes(self) -> None:
        check_reward(lambda outcome, dense: outcome.quality - 0.1 * outcome.macs / dense.macs)

    def test_that_does_not_exist_or_lacks_a_setting_is_refused(self) -> None:
        with pytest.raises(RewardError, match="did you mean 'error'"):
            check_reward("Error")
        with pytest.raises(RewardError, match="'keep' is required"):
            check_reward("budget_penalty")

    @pytest.mark.parametrize(
        ("reward", "words"),
        [
            (lambda outcome, _: 1.0 / outcome.quality, "fails for Outcome.*ZeroDivisionError"),
            (lambda *_: float("nan"), "is nan for Outcome.* must be a finite number"),
            (lambda *_: "much", "is 'much' for Outcome.* must be a finite number"),
            (lambda *_: np.random.rand(), r"the second time\. It must be a function of the two outcomes"),
            (lambda outcome, _: -outcome.latency, "looks at the latency says needs_latency=True: TypeError"),
            (lambda outcome, _: -(outcome.latency or 0.0), "with a latency, which .* Say needs_latency=True"),
        ],
    )
    def test_is_a_finite_function_of_the_outcomes(
        self, reward: Callable[[Outcome, Outcome], float], words: str
    ) -> None:
        with pytest.raises(AssertionError, match=f"^reward '.*lambda.*' .*{words}"):
            check_reward(reward)

    def test_is_given_the_latency_that_it_says_it_needs(self) -> None:
        def quick(outcome: Outcome, dense: Outcome) -> float:
            assert outcome.latency is not None
            assert dense.latency is not None
            return -outcome.latency / dense.latency

        quick.needs_latency = True  # type: ignore[attr-defined]
        check_reward(quick)

    @pytest.mark.parametrize("by", ["quality", "loss", "macs"])
    def test_ranks_as_quality_where_it_says_so(self, by: str) -> None:
        def ranking(outcome: Outcome, dense: Outcome) -> float:  # noqa: ARG001
            return {"quality": outcome.quality**3, "loss": -outcome.loss, "macs": round(outcome.quality)}[by]

        check_reward(ranking)
        ranking.ranks_as_quality = True  # type: ignore[attr-defined]
        if by == "quality":
            check_reward(ranking)
            return
        with pytest.raises(
            AssertionError, match=r"says ranks_as_quality=True\..* be greater where the quality is greater"
        ):
            check_reward(ranking)


class Random(Search):
    """A search that keeps its promises; what the others below break is one thing each."""

    def run(self, has_budget: HasBudget) -> None:
        while has_budget():
            self.problem.attempt(self.widths(), self.config.agent.name)

    def widths(self) -> Any:
        return self.problem.budget.random(self.generator)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.generator = np.random.default_rng(self.config.seed)


class Overspending(Random):
    def run(self, has_budget: HasBudget) -> None:  # noqa: ARG002
        while True:
            self.problem.attempt(self.widths(), self.config.agent.name)


class Overbearing(Random):
    def widths(self) -> Any:
        return self.problem.budget.channels


class Nameless(Random):
    def run(self, has_budget: HasBudget) -> None:
        while has_budget():
            self.problem.attempt(self.widths(), "me")
            self.problem.attempt(self.widths(), self.config.agent.name)


class Drifting(Random):
    def widths(self) -> Any:
        return self.problem.budget.random(np.random.default_rng(np.random.randint(1000)))


class Remembering(Random):
    calls = itertools.count()

    def widths(self) -> Any:
        return self.problem.budget.random(np.random.default_rng(next(self.calls)))


class Clocked(Random):
    """Goes by what a resumed run does not have: how long a trial took."""

    def run(self, has_budget: HasBudget) -> None:
        while has_budget():
            recalled = self.problem.attempt(self.widths(), self.config.agent.name).recalled
            self.generator.random(1 + recalled)


class SecretlyProbing(Random):
    def run(self, has_budget: HasBudget) -> None:
        assert self.problem.loss_rises
        super().run(has_budget)


class Contradicting(Random):
    needs_probes = True


class Cutting(Random):
    def run(self, has_budget: HasBudget) -> None:
        with torch.no_grad():
            self.problem.walk.model.fc.weight.mul_(2.0)
        super().run(has_budget)


class Rescoring(Random):
    def run(self, has_budget: HasBudget) -> None:
        for values in self.problem.scores.values():
            values[:] = 0.0
        super().run(has_budget)


class Idle(Random):
    def run(self, has_budget: HasBudget) -> None:
        pass


class Failing(Random):
    def widths(self) -> Any:
        raise KeyError("nothing learned")


class Telling(Random):
    @property
    def scalars(self) -> dict[str, float]:
        return {"search/step": float("inf")}


class TestSearch:
    def test_that_keeps_them_passes_registered_or_not(self) -> None:
        check_search(Random)
        check_search(f"{__name__}:Random")
        with SEARCHES.restored():
            SEARCHES.add("mine", Random)
            check_search("mine")
            check_search(Random)
        assert "Random" not in SEARCHES

    def test_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="there is no agent or search 'xyzzy'"):
            check_search("xyzzy")

    @pytest.mark.parametrize(
        ("search", "words"),
        [
            (Overspending, r"tries more than 12 plans with search\.evaluations=12\. It must ask has_budget\(\)"),
            (Overbearing, r", trial 0: the plan takes \d+ MACs, and \d+ are allowed\. .*project"),
            (Nameless, r", trial 0: it is proposed by 'me'\."),
            (Drifting, r", trial 0: the same seed gives another plan the second time.* global generator"),
            (Remembering, r", trial 0: the same seed gives another plan the second time"),
            (Clocked, r"fails with search\.evaluations=12: RunError: .*|a run that is resumed after 1 trials"),
            (SecretlyProbing, r"probes the units, and says probes=False"),
            (Contradicting, r"says needs_probes=True and probes=False"),
            (Cutting, r"it changes the network's tensor 'fc\.weight'"),
            (Rescoring, r"it changes the problem's scores"),
            (Idle, r"ended without trying a plan"),
            (Failing, r"fails with search\.evaluations=12: KeyError: 'nothing learned'"),
            (Telling, r"its scalar 'search/step' is inf"),
        ],
    )
    def test_that_breaks_one_is_told_which(self, search: type[Search], words: str) -> None:
        with pytest.raises(AssertionError, match=f"^search '{search.__name__}'.*{words}"):
            check_search(search)


class Unbounded(ChannelPlanBuilder):
    """Asks for what it wants, whatever the budget is."""

    def decide(self, numbers: Sequence[float]) -> None:
        (keep,) = numbers
        self._close(self.budget.allowed(self.number, keep * int(self.budget.channels[self.number])))


class Greedy(Channel):
    name = "greedy"

    def builder(self, budget: Budget) -> PlanBuilder:
        return Unbounded(budget, self._scores)


class Fickle(Channel):
    name = "fickle"

    def builder(self, budget: Budget) -> PlanBuilder:
        return ChannelPlanBuilder(budget, {name: np.random.rand(len(s)) for name, s in self._scores.items()})


class Lopsided(Channel):
    name = "lopsided"

    def actions(self) -> tuple[ActionDimension, ...]:
        (keep,) = super().actions()
        return (ActionDimension("keep ratio", keep.decode, lambda _number, _even: 0.0),)


class Miscounting(Channel):
    name = "miscounting"

    @classmethod
    def action_numbers(cls, action: str) -> int:  # noqa: ARG003
        return 2


class Shy(Channel):
    name = "shy"

    def demonstration_count(self, rules: int, budget: Budget) -> int:  # noqa: ARG002
        return rules + 1


class Lost(Channel):
    name = "lost"

    def measurements(self) -> dict[str, Any]:
        return {"time": 1.0}


class Wild(Channel):
    name = "wild"

    def series(self, record: Mapping[str, Any]) -> Series:  # noqa: ARG002
        return {"widths": {"stem": float("nan")}}


class HeavyMiddle(MiddleEdit):
    kind = "heavy"

    def weights(self, kernel: int, inputs: int, outputs: int) -> int:  # noqa: ARG002
        return inputs * outputs + 1


class WholeMiddle(MiddleEdit):
    kind = "whole"

    def masked(self, module: Any, sides: Sides, cut: Any) -> dict[str, torch.Tensor]:  # noqa: ARG002
        return dict(cut(sides))


class TestGranularity:
    def test_that_keeps_them_passes(self) -> None:
        check_granularity(Channel)

    def test_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'channel'"):
            check_granularity("channels")

    @pytest.mark.parametrize(
        ("granularity", "words"),
        [
            (Greedy, r"action 'share', plan \d+: the plan takes \d+ MACs, and \d+ are allowed"),
            (Fickle, r"action 'share', plan \d+: the same actions give another plan the second time"),
            (Lopsided, r"'keep ratio' decodes -1\.0 and encodes the result as 0\.0"),
            (Miscounting, r"an action 'share' has 1 numbers, and action_numbers says 2"),
            (Shy, r"gives 2 demonstrations, and demonstration_count says 3"),
            (Lost, r"measures something, and measurements_file is None"),
            (Wild, r"plan 0: its series 'widths' holds a number that is not finite"),
        ],
    )
    def test_that_breaks_one_is_told_which(self, granularity: type[Granularity], words: str) -> None:
        with pytest.raises(AssertionError, match=f"^granularity '{granularity.name}'.*{words}"):
            check_granularity(granularity)

    @pytest.mark.parametrize(
        ("edit", "words"),
        [
            (HeavyMiddle, r"the plan says \d+ MACs .*, and its network has .*weights"),
            (WholeMiddle, r"the evaluator's network and that of plan\.apply differ by .* of the largest output"),
        ],
    )
    def test_an_edit_is_the_same_layer_for_all(
        self, edit: type[MiddleEdit], words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("own_granularity.MiddleEdit", edit)
        with EDITS.restored():
            register_edit(edit)
            with pytest.raises(AssertionError, match=f"^granularity 'middle'.*{words}"):
                check_granularity(Middle)


class Averaging(Classification):
    def loss(self, outputs: Any, batch: Batch, reduction: Reduction = "none", smoothing: float = 0.0) -> torch.Tensor:
        return super().loss(outputs, batch, "mean" if reduction == "none" else reduction, smoothing)


class Percent(Accuracy):
    def compute(self) -> float:
        return 100.0 * super().compute()


class Forgetful(Accuracy):
    def update(self, outputs: Any, batch: Batch) -> None:
        self.reset()
        super().update(outputs, batch)


class InPercent(Classification):
    def metrics(self) -> tuple[Metric, ...]:
        return (Percent(),)


class LastBatch(Classification):
    def metrics(self) -> tuple[Metric, ...]:
        return (Forgetful(),)


class Shared(Classification):
    kept = (Accuracy(),)

    def metrics(self) -> tuple[Metric, ...]:
        return self.kept


class Unlearning(Classification):
    def loss(self, outputs: Any, batch: Batch, reduction: Reduction = "none", smoothing: float = 0.0) -> torch.Tensor:
        return super().loss(outputs.detach(), batch, reduction, smoothing)


class Rolling(Classification):
    def augment(self, batch: Batch, draws: torch.Tensor, name: str) -> Batch:  # noqa: ARG002
        return Batch(batch.images + torch.rand(()), batch.targets)


class TestTask:
    def model(self) -> ToyResNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return ToyResNet(4)

    def batch(self) -> Batch:
        generator = torch.Generator().manual_seed(0)
        return Batch(torch.randn(6, COLOURS, SIDE, SIDE, generator=generator), torch.arange(6) % CLASSES)

    def test_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'classification'"):
            check_task("clasification", self.model(), self.batch())

    @pytest.mark.parametrize(
        ("task", "words"),
        [
            (Averaging, r"the loss of 6 images is .*one finite number of at least 0 for each"),
            (InPercent, r"the quality, 'accuracy', is \d.*It must be in \[0, 1\]"),
            (LastBatch, r"'accuracy' is .* for the images at once, and .* one by one"),
            (Shared, r"metrics\(\) gives the same objects twice"),
            (Unlearning, r"the loss in training has no gradient"),
            (Rolling, r"augment\(\) with 'none' gives other images for the same numbers"),
        ],
    )
    def test_that_breaks_one_is_told_which(self, task: type[Classification], words: str) -> None:
        with pytest.raises(AssertionError, match=f"^task 'classification'.*{words}"):
            check_task(task, self.model(), self.batch())


@pytest.fixture(autouse=True)
def same_global_state() -> Iterator[None]:
    """Checks leave the global generators as they were."""
    before = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    yield
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
