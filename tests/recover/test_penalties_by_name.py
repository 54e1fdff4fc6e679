"""Penalties by name, and trainings with each of them that are interrupted."""

from collections.abc import Callable

import pytest
import torch
from penalised import context_of, trained_with, trainer_with
from torch import Tensor, nn
from toy import toy_resnet

from prune_env.recover.checkpoint import read_checkpoint, to_checkpoint
from prune_env.recover.penalties import PENALTIES, Penalty, PenaltyContext, register_penalty

GIVEN: dict[str, dict[str, object]] = {
    "bn_scale": {"strength": 0.01},
    "cdp": {"strength": 0.05, "threshold": 0.6, "weight_decay": 1e-3},
    "group_lasso": {"strength": 0.01},
}


class Shrinking(Penalty):
    """Mine: the squares of all weights."""

    def __init__(self, context: PenaltyContext) -> None:
        self.context = context

    def penalty(self) -> Tensor:
        return 1e-2 * torch.stack([weight.square().sum() for weight in self.model.parameters()]).sum()


def plain(make: Callable[[], tuple[Penalty, object]]) -> dict[str, Tensor]:
    penalty, trainer = make()
    return dict(penalty.finish(trainer.result).state_dict())  # type: ignore[attr-defined]


def test_the_library_s_own_are_registered() -> None:
    assert set(PENALTIES.names()) == set(GIVEN)


@pytest.mark.slow
@pytest.mark.parametrize("average", [0.0, 0.3])
@pytest.mark.parametrize("name", GIVEN)
def test_a_training_that_was_interrupted_ends_with_the_same_weights(
    name: str, average: float, tmp_path: object
) -> None:
    given = {**GIVEN[name], "epochs": 4, "average": average}
    expected = plain(lambda: trained_with(name, **given))
    _, first = trainer_with(name, **given)
    epochs = [first.run_epoch()]
    penalty, second = trainer_with(name, **given)
    path = tmp_path / "checkpoint.safetensors"  # type: ignore[operator]
    path.write_bytes(to_checkpoint(first, epochs, {}))
    second.resume(read_checkpoint(path, {}, second.task)[0], 1)
    for _ in range(3):
        second.run_epoch()
    found = penalty.finish(second.result).state_dict()
    assert found.keys() == expected.keys() == toy_resnet().state_dict().keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_one_of_ones_own_is_taken_by_its_name() -> None:
    with PENALTIES.restored():
        register_penalty("shrinking")(Shrinking)
        penalty, trainer = trained_with("shrinking")
    _, other = trained_with("bn_scale", strength=0.0)
    assert sizes(trainer.result) < sizes(other.result)
    assert penalty.finish(trainer.result) is trainer.result
    assert penalty.record(trainer.result) == {}
    with pytest.raises(ValueError, match="registered already"):
        register_penalty("cdp")(Shrinking)
    assert isinstance(PENALTIES.find(f"{__name__}:Shrinking")(context_of()), Shrinking)


def sizes(model: nn.Module) -> float:
    return sum(float(parameter.detach().square().sum()) for parameter in model.parameters())
