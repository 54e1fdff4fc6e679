"""Measured latency: networks run in turn, in eval mode."""

import time

import pytest
import torch
from torch import Tensor, nn
from toy import image_set, toy_resnet
from zoo import imprint

from prune_env.common.latency import measure_latency

TRIES = 3
"""Limits apply to the fastest of several tries, because other programs may keep the machine busy."""


class Recorder(nn.Module):
    def __init__(self, name: str, calls: list[str], seconds: float = 0.0) -> None:
        super().__init__()
        self.name, self.calls, self.seconds = name, calls, seconds

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(self.name)
        time.sleep(self.seconds)
        return images


@pytest.mark.parametrize(("rounds", "warmup"), [(4, 2), (1, 0)])
def test_networks_are_taken_in_turn(rounds: int, warmup: int) -> None:
    calls: list[str] = []
    models = {name: Recorder(name, calls) for name in ("dense", "uniform", "agent")}
    found = measure_latency(models, torch.zeros(1), rounds=rounds, warmup=warmup)
    assert calls == ["dense", "uniform", "agent"] * (rounds + warmup)
    assert list(found) == ["dense", "uniform", "agent"]


def test_latency_is_in_seconds_and_its_quartiles_are_in_order() -> None:
    quartiles = []
    for _ in range(TRIES):
        one = Recorder("one", [], seconds=0.02)
        found = measure_latency({"one": one}, torch.zeros(1), rounds=5, warmup=0)["one"]
        assert 0.02 <= found.q1 <= found.median <= found.q3
        quartiles.append(found.q3)
    assert min(quartiles) < 2.0


def test_rounds_of_the_warm_up_are_not_counted() -> None:
    class SlowAtFirst(Recorder):
        def forward(self, images: Tensor) -> Tensor:
            self.seconds = 0.3 if len(self.calls) < 2 else 0.0
            return super().forward(images)

    tries = [measure_latency({"one": SlowAtFirst("one", [])}, torch.zeros(1), rounds=4, warmup=2) for _ in range(TRIES)]
    assert min(found["one"].q3 for found in tries) < 0.2


def test_a_much_larger_network_takes_longer() -> None:
    models = {"large": toy_resnet(64), "small": toy_resnet(4)}
    tries = [measure_latency(models, image_set(64).images, rounds=7, warmup=1) for _ in range(TRIES)]
    assert min(found["large"].q1 for found in tries) > 2 * min(found["small"].q3 for found in tries)


@pytest.mark.parametrize("training", [True, False])
def test_networks_run_in_eval_mode_and_stay_as_they_were(training: bool) -> None:
    model = toy_resnet().train(training)
    model.down_bn.eval()
    before = imprint(model)
    modes: list[bool] = []
    model.stem_bn.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    measure_latency({"one": model}, image_set(4).images, rounds=2, warmup=1)
    assert modes == [False] * 3
    assert imprint(model) == before
