"""Latency as a formula of the widths: the fit, its predictions, and latency budgets."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn
from toy import image_set, toy_problem, toy_walk
from zoo import conv, small_images

from prune_env import LayerWalk
from prune_env.budget import Budget, latency_model
from prune_env.budget.latency_model import LatencyModel, fit_latency
from prune_env.budget.width_multiple import fastest_multiple
from prune_env.common.errors import BudgetError, RunError
from prune_env.common.latency import Latency
from prune_env.common.records import checked, to_file
from prune_env.rewards import make_reward

BATCH = image_set(4).images
with_made_up_times = pytest.mark.usefixtures("made_up")


def seconds_of(module: nn.Module) -> float:
    """The seconds that the made-up machine needs for one module, without the modules in it."""
    if isinstance(module, nn.Conv2d):
        reads, writes = module.in_channels, module.out_channels
        return 1e-4 + 2e-6 * reads + 3e-6 * writes + 5e-7 * reads * writes
    if isinstance(module, nn.Linear):
        return 1e-5 + 1e-8 * module.in_features * module.out_features
    return 3e-4 if isinstance(module, nn.BatchNorm2d) else 0.0


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock moves only while modules run."""
    clock = [0.0]

    def ticking(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def timed(module: nn.Module, images: Tensor) -> Tensor:
            clock[0] += seconds_of(module)
            return forward(module, images)

        return timed

    for kind in (nn.Conv2d, nn.Linear, nn.BatchNorm2d):
        monkeypatch.setattr(kind, "forward", ticking(kind.forward))
    monkeypatch.setattr(latency_model, "now", lambda _device: clock[0])


def total_of(model: nn.Module) -> float:
    return sum(seconds_of(module) for module in model.modules())


@with_made_up_times
def test_the_formula_finds_what_layers_take_at_any_width() -> None:
    walk = toy_walk()
    found = fit_latency(walk, BATCH, 0.1, 0)
    assert found.error < 1e-6
    generator = np.random.default_rng(7)
    for _ in range(5):
        widths = {unit.name: int(generator.integers(1, unit.channels + 1)) for unit in walk.free}
        plan = walk.plan(widths)
        asked = found.seconds(walk, [plan.widths[unit.name] for unit in walk.units])
        assert asked == pytest.approx(total_of(plan.apply(walk.model)), rel=1e-5)


@with_made_up_times
def test_the_form_of_the_budget_is_the_formula_in_femtoseconds() -> None:
    walk = toy_walk()
    found = fit_latency(walk, BATCH, 0.1, 0)
    formula = found.cost_form(walk)
    generator = np.random.default_rng(3)
    for _ in range(10):
        widths = np.array([generator.integers(1, unit.channels + 1) for unit in walk.free])
        plan = walk.plan({unit.name: int(width) for unit, width in zip(walk.free, widths, strict=True)})
        seconds = found.seconds(walk, [plan.widths[unit.name] for unit in walk.units])
        assert formula.cost(widths) == pytest.approx(1e15 * seconds, rel=1e-5)


@with_made_up_times
def test_the_latency_of_a_depthwise_layer_depends_on_its_one_width() -> None:
    layers = conv(3, 8), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)
    walk = LayerWalk.trace(nn.Sequential(*layers).eval(), small_images())
    found = fit_latency(walk, small_images(), 0.1, 0)
    layer = next(layer for layer in walk.cost_model.layers if layer.depthwise)
    assert found.layers[layer.name].inputs == found.layers[layer.name].products == 0.0
    assert found.layers[layer.name].outputs > 0.0


def test_on_a_real_clock_every_layer_takes_time_and_together_less_than_the_whole_pass() -> None:
    walk = toy_walk()
    found = fit_latency(walk, BATCH, 0.1, 0)
    widths = [unit.channels for unit in walk.units]
    layers = walk.cost_model.layers
    assert set(found.layers) == {layer.name for layer in layers}
    seconds = [found.layers[one.name].seconds(one.inputs.at(widths), one.outputs.at(widths)) for one in layers]
    assert all(each > 0.0 for each in seconds)
    assert sum(seconds) < found.seconds(walk, widths)


@with_made_up_times
def test_a_budget_of_latency_is_met_by_whatever_is_proposed() -> None:
    walk = toy_walk()
    found = fit_latency(walk, BATCH, 0.1, 0)
    dense = total_of(walk.model)
    least = total_of(walk.plan({unit.name: 1 for unit in walk.free}).apply(walk.model)) / dense
    keep = 0.5 * (1.0 + least)
    budget = Budget(walk, "latency", keep, 0.01, formula=found.cost_form(walk))
    generator = np.random.default_rng(0)
    for _ in range(10):
        widths = budget.random(generator, 1.0)
        took = total_of(walk.plan(budget.names(widths)).apply(walk.model))
        assert took <= keep * dense * (1.0 + 1e-5)
        wider = np.minimum(widths + 1, budget.channels)
        assert budget.cost(wider) > budget.limit or (wider == widths).all()
    with pytest.raises(BudgetError, match="of the dense latency given"):
        Budget(walk, "latency", 0.9 * least, 0.01, formula=found.cost_form(walk))


@with_made_up_times
def test_the_formula_is_the_same_from_a_file() -> None:
    found = fit_latency(toy_walk(), BATCH, 0.1, 0)
    assert checked(json.loads(to_file(found)), LatencyModel, "latency.json") == found
    for spoiled in ({"layers": {"conv": 1}}, {"more": 1}, {"batch": 0}, {"values": -1.0}, {"constant": True}):
        (field,) = spoiled
        with pytest.raises(RunError, match=rf"latency\.json is damaged: {field}.*: given"):
            checked({**found.as_record(), **spoiled}, LatencyModel, "latency.json")


@with_made_up_times
def test_a_formula_of_other_layers_is_refused_by_the_layer() -> None:
    walk = toy_walk()
    found = fit_latency(walk, BATCH, 0.1, 0)
    found.refuse_unfit(walk)
    fewer = {name: layer for name, layer in found.layers.items() if name != "mid"}
    for layers, words in (
        (fewer, "lacks the layer 'mid'"),
        ({**found.layers, "x": found.layers["mid"]}, "has the layer 'x'"),
    ):
        with pytest.raises(RunError, match=rf"latency\.json\) {words}.*start a new run"):
            found.model_copy(update={"layers": layers}).refuse_unfit(walk)
    with pytest.raises(RunError, match=r"gives 1e\+30 s for a batch of the dense network; allowed are 3600 s or less"):
        found.model_copy(update={"constant": 1e30}).refuse_unfit(walk)


@with_made_up_times
def test_every_outcome_has_the_latency_that_a_reward_may_ask_for() -> None:
    reward = make_reward("latency_penalty", {"keep": 0.1})
    problem = toy_problem(reward=reward, latency=fit_latency(toy_walk(), BATCH, 0.1, 0))
    trial = problem.attempt(problem.budget.uniform(), "uniform")
    assert trial.outcome.latency is not None
    assert problem.baseline.latency is not None
    assert trial.outcome.latency < problem.baseline.latency
    over = trial.outcome.latency / problem.baseline.latency - 0.1
    assert trial.reward == pytest.approx(trial.outcome.accuracy - over)
    assert trial.as_record()["latency"] == trial.outcome.latency


class TestTheFastestMultiple:
    @staticmethod
    def chosen(monkeypatch: pytest.MonkeyPatch, penalty: float) -> int:
        """The chosen multiple if each layer whose width is no multiple of 4 adds the penalty."""

        def timed(models: dict[str, nn.Module], _images: Tensor) -> dict[str, Latency]:
            odd = {
                name: sum(module.out_channels % 4 > 0 for module in model.modules() if isinstance(module, nn.Conv2d))
                for name, model in models.items()
            }
            seconds = {name: 1.0 + penalty * count for name, count in odd.items()}
            return {name: Latency(value, value, value) for name, value in seconds.items()}

        monkeypatch.setattr("prune_env.budget.width_multiple.measure_latency", timed)
        walk = toy_walk()
        return fastest_multiple(walk, lambda m: Budget(walk, "macs", 0.5, 0.1, m), BATCH, 0).round_to

    def test_is_that_which_makes_networks_faster(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.chosen(monkeypatch, 0.2) % 4 == 0

    def test_is_one_where_that_is_not_worth_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.chosen(monkeypatch, 0.001) == 1

    def test_leaves_out_what_cannot_meet_the_budget(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def of(multiple: int) -> Any:
            if multiple > 1:
                raise BudgetError("not in reach")
            return Budget(toy_walk(), "macs", 0.5)

        monkeypatch.setattr(
            "prune_env.budget.width_multiple.measure_latency",
            lambda models, _: {name: Latency(1, 1, 1) for name in models},
        )
        assert fastest_multiple(toy_walk(), of, BATCH, 0).round_to == 1
