"""Repairs by name: the library's own, the user's own by its module, and what is refused."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from toy import digits_config, digits_splits, trained_digits

from prune_env.common.errors import ConfigError
from prune_env.env.builders import build_problem, build_walk, make_repair
from prune_env.env.loading import check_names
from prune_env.repair import REPAIRS, LeastSquares, RepairContext, register_repair

OWN = """
import torch

class Doubled:
    def __init__(self, context):
        self.model, self.readers = context.scoring.walk.model, context.readers
        self.images = len(context.scoring.images)

    def tensors(self, name, sides):
        if name not in self.readers or "in" not in sides:
            return {}
        weight = self.model.get_submodule(name).weight.detach()
        weight = weight[torch.as_tensor(sides["out"])] if "out" in sides else weight
        return {"weight": 2.0 * weight[:, torch.as_tensor(sides["in"])]}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a repair of the user's own."""
    (tmp_path / "own_repair_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_repair_of_a_test:Doubled"
    sys.modules.pop("own_repair_of_a_test", None)


def test_the_library_s_own_are_none_and_least_squares() -> None:
    assert REPAIRS.names() == ("none", "least_squares")
    config, splits = digits_config(), digits_splits()
    walk, _ = build_walk(config, splits, trained_digits())
    assert make_repair(config, splits, walk) is None
    fitted = digits_config("repair.name=least_squares", "repair.ridge=0.25")
    repair = make_repair(fitted, splits, walk)
    assert isinstance(repair, LeastSquares)
    assert repair.ridge == 0.25


def test_an_own_repair_is_named_by_its_module_and_repairs_every_evaluation(own: str) -> None:
    config = digits_config(f"repair.name={own}", "repair.images=7", "sensitivity.enabled=false")
    problem = build_problem(config, digits_splits(), trained_digits())
    plan = problem.plan(problem.budget.uniform())
    assert plan.provenance["repair"] == own
    repair = problem.evaluator.repair
    assert repair is not None
    assert repair.images == 7
    networks = (problem.evaluator.repaired(plan, repair), plan.apply(trained_digits()))
    repaired, plain = (network.get_submodule("layer1.0.conv2").get_parameter("weight") for network in networks)
    torch.testing.assert_close(repaired, 2.0 * plain)


def test_images_are_read_only_for_a_repair_that_needs_images() -> None:
    def refuse() -> None:
        raise AssertionError("images were read")

    context = RepairContext(digits_config().repair, (), refuse)
    assert REPAIRS.find("none")(context) is None
    with pytest.raises(AssertionError, match="images were read"):
        REPAIRS.find("least_squares")(context)


@pytest.mark.parametrize(("given", "meant"), [("leastsquares", "least_squares"), ("NONE", "none")])
def test_a_repair_that_does_not_exist_is_refused_before_any_time_is_spent(given: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"^repair\.name: there is no repair '{given}'; did you mean '{meant}'\?"):
        check_names(digits_config(f"repair.name={given}"))


def test_a_name_of_a_repair_is_registered_once() -> None:
    with pytest.raises(ValueError, match="repair named 'none' is registered already"):
        register_repair("none")(lambda _: None)


def test_merge_of_earlier_runs_is_read_and_cannot_be_made_any_more() -> None:
    config = digits_config("repair.name=merge")
    assert config.repair.name == "merge"
    with pytest.raises(ConfigError, match=r"^repair\.name: there is no repair 'merge'; known: least_squares, none"):
        check_names(config)
