"""Modules watched while a block runs."""

import pytest
import torch
from torch import Tensor, nn

from prune_env.common.hooks import watching

IMAGES = torch.ones(1, 2)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def hooks_on(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_every_call_of_the_named_modules_is_shown_before_and_after_it() -> None:
    model, seen = network(), list[tuple[str, str, list[int]]]()

    def before(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(("before", name, list(inputs[0].shape)))

    def after(name: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(("after", name, list(output.shape)))

    with watching(model, ["0", "2"], before, after):
        model(IMAGES)
    assert seen == [("before", "0", [1, 2]), ("after", "0", [1, 3]), ("before", "2", [1, 3]), ("after", "2", [1, 1])]
    model(IMAGES)
    assert len(seen) == 4


def test_what_a_hook_returns_replaces_inputs_and_output() -> None:
    def half(_name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] / 2,)

    def one_more(_name: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + 1

    model = network()
    with torch.no_grad():
        halved = model(IMAGES / 2)
        with watching(model, ["0"], before=half):
            assert torch.equal(model(IMAGES), halved)
        with watching(model, ["2"], after=one_more):
            assert torch.equal(model(IMAGES / 2), halved + 1)


def fail_within(model: nn.Module, names: list[str]) -> None:
    with watching(model, names, before=print):
        assert hooks_on(model) == 2
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("names", "error"),
    [(["0", "2"], ZeroDivisionError), (["0", "nowhere"], AttributeError)],
    ids=["in the block", "while hooks are set"],
)
def test_no_hook_is_left_after_an_error(names: list[str], error: type[Exception]) -> None:
    model = network()
    with pytest.raises(error):
        fail_within(model, names)
    assert hooks_on(model) == 0
