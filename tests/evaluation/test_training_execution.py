"""The fastest execution of training steps: only open settings are measured, and nothing else changes."""

import time
from typing import Any

import pytest
import torch
from practice import network, settings_of
from torch import Tensor, nn
from toy import TASK, ToyResNet, image_set

from prune_env.common.errors import ConfigError
from prune_env.evaluation import training_execution
from prune_env.evaluation.execution import ExecutionSettings, Layout, NumberType
from prune_env.evaluation.training_execution import fastest_training, unsafe_in_channels_last

CONTIGUOUS: Layout = "contiguous"
LAST: Layout = "channels_last"
settings_in = ExecutionSettings.for_training


def fastest(given: dict[str, Any], model: nn.Module | None = None) -> ExecutionSettings:
    settings = settings_of(**{"layout": None, "dtype": None, **given})
    (batch,) = image_set(8).batches(8)
    return fastest_training(model or network(), batch, TASK, lambda outputs: outputs.square().mean(), settings)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> dict[ExecutionSettings, float]:
    """The made-up time of each candidate; any other candidate is an error."""
    told: dict[ExecutionSettings, float] = {}
    monkeypatch.setattr(
        training_execution, "time_in_turn", lambda runs, *_: {candidate: [2.0, told[candidate]] for candidate in runs}
    )
    return told


@pytest.mark.usefixtures("seconds")
@pytest.mark.parametrize("layout", [CONTIGUOUS, LAST])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_given_is_not_measured(layout: Layout, dtype: NumberType) -> None:
    assert fastest({"layout": layout, "dtype": dtype}) == settings_in(layout, dtype)


@pytest.mark.parametrize("best", [(a, b) for a in (CONTIGUOUS, LAST) for b in ("float32", "bfloat16")])
def test_the_fastest_candidate_is_taken(
    seconds: dict[ExecutionSettings, float], best: tuple[Layout, NumberType]
) -> None:
    seconds |= {settings_in(layout, dtype): 1.0 for layout in (CONTIGUOUS, LAST) for dtype in ("float32", "bfloat16")}
    seconds[settings_in(*best)] = 0.5
    assert fastest({}) == settings_in(*best)


def test_a_candidate_that_is_hardly_faster_is_not_taken(seconds: dict[ExecutionSettings, float]) -> None:
    seconds |= {settings_in(CONTIGUOUS, "float32"): 1.0, settings_in(LAST, "float32"): 0.97}
    assert fastest({"dtype": "float32"}) == settings_in(CONTIGUOUS, "float32")


def test_only_what_is_left_open_is_measured(seconds: dict[ExecutionSettings, float]) -> None:
    seconds |= {settings_in(LAST, "float32"): 1.0, settings_in(LAST, "bfloat16"): 0.5}
    assert fastest({"layout": LAST}) == settings_in(LAST, "bfloat16")
    seconds.clear()
    seconds |= {settings_in(CONTIGUOUS, "bfloat16"): 1.0, settings_in(LAST, "bfloat16"): 0.5}
    assert fastest({"dtype": "bfloat16"}) == settings_in(LAST, "bfloat16")


class TestANarrowStridedProjection:
    """A strided 1x1 convolution of few channels: oneDNN corrupts memory when it trains one in channels_last."""

    def test_is_trained_in_contiguous_layout(self) -> None:
        assert fastest({"dtype": "float32"}, ToyResNet(4)) == settings_in(CONTIGUOUS, "float32")

    def test_leaves_only_bfloat16_in_channels_last(self) -> None:
        assert fastest({"layout": LAST}, ToyResNet(4)) == settings_in(LAST, "bfloat16")

    def test_is_refused_in_channels_last_and_float32(self) -> None:
        with pytest.raises(ConfigError, match="'project', a strided 1x1 convolution of fewer than 16 channels"):
            fastest({"layout": LAST, "dtype": "float32"}, ToyResNet(4))

    def test_of_a_whole_block_of_channels_is_allowed(self) -> None:
        assert unsafe_in_channels_last(ToyResNet(16)) is None


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
def test_the_steps_themselves_are_timed(slow: torch.dtype, taken: str) -> None:
    assert fastest({"layout": CONTIGUOUS}, Slow(slow)) == settings_in(CONTIGUOUS, taken)


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
