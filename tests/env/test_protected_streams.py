"""`env.protect: residual_streams` is the mapping that names each stream by its first layer."""

import pytest
from toy import digits_config, digits_splits, trained_digits

from prune_env.env.builders import build_problem, trace

NAMED = "{conv1: why, layer2.0.conv2: why, layer3.0.conv2: why}"


def test_residual_streams_are_protected_with_the_reason_in_words() -> None:
    walk = trace(digits_config("env.protect=residual_streams"), digits_splits(), trained_digits())
    reasons = {unit.name: unit.protected for unit in walk.units if not unit.free and unit.name != "linear"}
    words = "residual stream, written by 4 layers"
    assert reasons == {"conv1": words, "layer2.0.conv2": words, "layer3.0.conv2": words}


def test_a_module_that_is_also_protected_by_name_keeps_its_own_reason() -> None:
    config = digits_config("env.protect=residual_streams", "env.protect.conv1=mine", "env.protect.layer1.1.conv1=mine")
    walk = trace(config, digits_splits(), trained_digits())
    reasons = {unit.name: unit.protected for unit in walk.units}
    assert reasons["conv1"] == reasons["layer1.1.conv1"] == "mine"
    assert reasons["layer2.0.conv2"] == "residual stream, written by 4 layers"


@pytest.mark.parametrize("granularity", ["channel", "group"])
def test_the_word_gives_the_same_plans_as_the_mapping(granularity: str) -> None:
    splits, model = digits_splits(), trained_digits()
    problems = [
        build_problem(digits_config(f"granularity.name={granularity}", f"env.protect={given}"), splits, model)
        for given in ("residual_streams", NAMED)
    ]
    by_word, by_name = (problem.attempt(problem.budget.uniform(), "uniform") for problem in problems)
    assert [unit.name for unit in problems[0].budget.units] == [unit.name for unit in problems[1].budget.units]
    assert by_word.plan.kept == by_name.plan.kept
    assert by_word.plan.edits == by_name.plan.edits
    assert by_word.outcome == by_name.outcome
    # Which convolutions stay one group, and why; what was timed differs.
    by_word, by_name = (getattr(problem.granularity.measurements(), "whole", None) for problem in problems)
    assert by_word == by_name
    assert (by_word is not None) == (granularity == "group")
