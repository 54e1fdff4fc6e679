"""The fastest passes: measured only where they are left open, and nothing else changes."""

import time
from typing import Any

import pytest
import torch
from practice import network, settings_of
from torch import Tensor, nn
from toy import TASK, image_set

from prune_env.evaluation import training_passes as fastest_module
from prune_env.recover import Passes, fastest_passes

CONTIGUOUS, LAST = "contiguous", "channels_last"


def fastest(given: dict[str, Any], model: nn.Module | None = None) -> Passes:
    settings = settings_of(**{"layout": None, "dtype": None, **given})
    (batch,) = image_set(8).batches(8)
    return fastest_passes(model or network(), batch, TASK, lambda outputs: outputs.square().mean(), settings)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> dict[Passes, float]:
    """What each way is said to take; asking for another is an error."""
    told: dict[Passes, float] = {}
    monkeypatch.setattr(fastest_module, "_seconds", lambda _model, _batch, _task, _loss, way: told[way])
    return told


@pytest.mark.usefixtures("seconds")
@pytest.mark.parametrize("layout", [CONTIGUOUS, LAST])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_given_is_not_measured(layout: str, dtype: str) -> None:
    assert fastest({"layout": layout, "dtype": dtype}) == Passes(layout, dtype)


@pytest.mark.parametrize("best", [(a, b) for a in (CONTIGUOUS, LAST) for b in ("float32", "bfloat16")])
def test_the_fastest_way_is_taken(seconds: dict[Passes, float], best: tuple[str, str]) -> None:
    seconds |= {Passes(layout, dtype): 1.0 for layout in (CONTIGUOUS, LAST) for dtype in ("float32", "bfloat16")}
    seconds[Passes(*best)] = 0.5
    assert fastest({}) == Passes(*best)


def test_a_way_that_is_hardly_faster_is_not_taken(seconds: dict[Passes, float]) -> None:
    seconds |= {Passes(CONTIGUOUS, "float32"): 1.0, Passes(LAST, "float32"): 0.97}
    assert fastest({"dtype": "float32"}) == Passes(CONTIGUOUS, "float32")


def test_only_what_is_left_open_is_measured(seconds: dict[Passes, float]) -> None:
    seconds |= {Passes(LAST, "float32"): 1.0, Passes(LAST, "bfloat16"): 0.5}
    assert fastest({"layout": LAST}) == Passes(LAST, "bfloat16")
    seconds.clear()
    seconds |= {Passes(CONTIGUOUS, "bfloat16"): 1.0, Passes(LAST, "bfloat16"): 0.5}
    assert fastest({"dtype": "bfloat16"}) == Passes(LAST, "bfloat16")


class Slow(nn.Module):
    """A network that is slow in one number type."""

    def __init__(self, slow: torch.dtype) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 1)
        self.slow = slow

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.conv(images)
        if result.dtype == self.slow:
            time.sleep(0.03)
        return result.mean((2, 3))


@pytest.mark.parametrize(("slow", "taken"), [(torch.bfloat16, "float32"), (torch.float32, "bfloat16")])
def test_the_passes_themselves_are_timed(slow: torch.dtype, taken: str) -> None:
    assert fastest({"layout": CONTIGUOUS}, Slow(slow)) == Passes(CONTIGUOUS, taken)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_network_is_left_as_it_was(training: bool, layout: torch.memory_format) -> None:
    model = network(dropout=0.5).to(memory_format=layout).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    strides = [parameter.stride() for parameter in model.parameters()]
    fastest({}, model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [parameter.stride() for parameter in model.parameters()] == strides
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training == training for module in model.modules())
