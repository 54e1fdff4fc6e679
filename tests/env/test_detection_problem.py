"""A problem of detection: the whole detector is walked, cut, recalibrated, scored and repaired as a classifier is."""

from functools import cache

import numpy as np
import pytest
import torch
from box_trees import voc_tree
from detectors import boxed_batch, own_detector, small_torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prune_env import LayerWalk, PruningEnv, RunConfig
from prune_env.criteria import score_channels
from prune_env.env.builders import build_problem
from prune_env.env.loading import load_model, load_splits
from prune_env.env.problem import PruningProblem


def config_of(*overrides: str) -> RunConfig:
    document = {
        "task": {"name": "detection"},
        "model": {"name": "centre_detector"},
        "data": {"name": "scattered_digits", "reward_images": 16, "calibration_images": 16, "test_images": 8},
        "execution": {"layout": "contiguous", "dtype": "float32", "folded": True, "batch": 8, "threads": 1},
        "run": {"device": "cpu"},
        "search": {"evaluations": 5},
    }
    return RunConfig.from_mapping(document, overrides)


def problem_of(*overrides: str) -> PruningProblem:
    config = config_of(*overrides)
    splits = load_splits(config)
    return build_problem(config, splits, load_model(config, splits))


@cache
def problem() -> PruningProblem:
    return problem_of()


def test_all_units_are_free_but_the_head_s_outputs() -> None:
    walk = problem().walk
    assert [unit.name for unit in walk.units if unit.protected] == ["head"]
    assert len(walk.free) == 9


def test_costs_are_those_of_the_cut_detector() -> None:
    walk = problem().walk
    plan = walk.plan({unit.name: max(1, unit.channels // 3) for unit in walk.free})
    small = plan.apply(walk.model)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        small.eval()(torch.rand(1, 1, 96, 96))
    assert plan.costs.macs == counted.get_total_flops() // 2
    assert plan.costs.params == sum(parameter.numel() for parameter in small.parameters())


def test_an_evaluation_gives_map50_and_a_finite_loss() -> None:
    found = problem()
    trial = found.attempt(found.budget.uniform(), "uniform")
    assert trial.quality_name == "map50"
    assert 0.0 <= trial.outcome.quality <= 1.0
    assert np.isfinite(trial.outcome.loss)
    assert trial.outcome.macs <= found.budget.limit
    assert found.report is not None
    assert {layer.layer for layer in found.report.layers} >= {"conv1", "layer2.0.conv1"}


@pytest.mark.parametrize("name", ["taylor", "consumer_error", "feature_rank", "lobs", "bn_scale"])
def test_every_kind_of_criterion_scores_a_detector_s_channels(name: str) -> None:
    context = problem().context
    assert context is not None
    scores = score_channels(name, context)
    for unit in context.walk.free:
        assert scores[unit.name].shape == (unit.channels,)
        assert np.isfinite(scores[unit.name]).all()


def test_least_squares_repairs_a_detector() -> None:
    found = problem_of("repair.name=least_squares", "sensitivity.enabled=false", "sensitivity.probe_keep=null")
    plan = found.plan(found.budget.uniform())
    plain, repaired = (found.evaluator.repaired(plan, repair) for repair in (None, found.evaluator.repair))
    assert not torch.equal(plain.conv2.weight, repaired.conv2.weight)


@pytest.mark.slow
def test_groups_with_pruning_rates_and_selectors_cut_a_detector() -> None:
    found = problem_of(
        "granularity.name=group",
        "granularity.action=pruning_rate",
        "granularity.selectors=true",
        "env.protect=residual_streams",
        "repair.name=least_squares",
        "sensitivity.enabled=false",
        "sensitivity.probe_keep=null",
    )
    env = PruningEnv(problem=found, proposed_by="test")
    env.reset(seed=0)
    done, info = False, {}
    while not done:
        _, _, done, _, info = env.step(np.full(env.action_space.shape, 0.3, np.float32))
    plan = info["plan"]
    assert plan.by_layer
    assert plan.costs.macs <= found.budget.limit
    with torch.no_grad():
        outputs = plan.apply(found.walk.model).eval()(torch.rand(2, 1, 96, 96))
    assert outputs[0].keys() == {"boxes", "labels", "scores"}


@pytest.mark.parametrize("name", ["ssd", "retinanet", "fcos", "fasterrcnn"])
def test_detectors_of_torchvision_are_walked_whole(name: str) -> None:
    model = small_torchvision(name)
    walk = LayerWalk.trace(model, boxed_batch(1).images)
    free = {unit.name for unit in walk.free}
    assert {"backbone.stem", "backbone.convs.0"} & free
    plan = walk.plan({unit.name: max(1, unit.channels // 2) for unit in walk.free})
    small = plan.apply(model).eval()
    with torch.no_grad():
        assert set(small(list(boxed_batch(2).images))[0]) == {"boxes", "labels", "scores"}


def test_a_user_s_own_detector_is_walked_with_a_list_of_images() -> None:
    model = own_detector().eval()
    walk = LayerWalk.trace(model, [boxed_batch(1).images[0]])
    assert [unit.name for unit in walk.free] == ["conv"]


def test_images_of_different_sizes_on_disk_are_one_canvas(tmp_path: object) -> None:
    from pathlib import Path

    inside = {name: [("cat", (5, 5, 30, 30))] for name in "abcdefgh"}
    root = voc_tree(Path(str(tmp_path)), {"train": list("abcdef"), "val": ["g", "h"]}, inside)
    config = config_of(
        "data.name=voc", f"data.path={root}", "data.image_size=[48,64]", "data.reward_images=2",
        "data.calibration_images=2", "data.test_images=2",
    )  # fmt: skip
    splits = load_splits(config)
    model = load_model(config, splits)
    assert isinstance(model, nn.Module)
    assert splits.reward().images.shape == (2, 3, 48, 64)
