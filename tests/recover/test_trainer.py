"""The trainer: its steps follow the formulas, and the state before an epoch decides the epoch."""

import numpy as np
import pytest
import torch
from practice import CPU, batches_of, network, settings_of, trainer_of
from torch import Tensor, nn
from toy import TASK, image_set, planted_images

from prune_env.common.errors import EvaluationError
from prune_env.data import ArraySource, LabelledArrays
from prune_env.evaluation.execution import ExecutionSettings, Layout, NumberType
from prune_env.granularity.group.gathered import GatheredConv2d
from prune_env.recover import Batches, Trainer, Workers


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses that do not depend on the network, so a step is weight decay alone."""
    monkeypatch.setattr("prune_env.recover.trainer.training_loss", lambda logits, *_: 0.0 * logits.sum())


@pytest.mark.usefixtures("no_gradient")
def test_weight_decay_leaves_biases_and_norms_alone() -> None:
    model = network()
    before = weights_of(model)
    trainer_of(settings_of(epochs=1, weight_decay=0.1, warmup=0.0), model).run_epoch()
    decayed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert decayed == {f"{name}.weight" for name in ("stem", "down", "up", "project", "mid", "out", "fc")}
    for name in decayed:
        shrunk = dict(model.named_parameters())[name] / before[name]
        assert 0.9 < float(shrunk.detach().min()) <= float(shrunk.detach().max()) < 1.0


def test_a_step_is_nesterov_s_of_the_loss_s_gradient() -> None:
    settings = settings_of(epochs=1, batch_size=8, weight_decay=0.01, warmup=0.0)
    model, other = network(), network()
    trainer = trainer_of(settings, model, count=24)
    batches = list(batches_of(settings, 24).epoch(1))
    trainer.run_epoch()
    momenta: dict[str, Tensor] = {}
    other.train()
    for step, (images, labels) in enumerate(batches, start=1):
        other.zero_grad()
        nn.functional.cross_entropy(other(images), labels).backward()
        rate = settings.learning_rate * trainer.share_of_rate(step)
        with torch.no_grad():
            for name, parameter in other.named_parameters():
                assert parameter.grad is not None
                gradient = parameter.grad + (0.01 * parameter if parameter.dim() > 1 else 0.0)
                momenta[name] = 0.9 * momenta[name] + gradient if name in momenta else gradient
                parameter -= rate * (gradient + 0.9 * momenta[name])
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.33, 0.9])
def test_the_learning_rate_rises_evenly_to_its_highest_and_falls_to_almost_nothing(warmup: float) -> None:
    trainer = trainer_of(settings_of(epochs=20, warmup=warmup))
    shares = [trainer.share_of_rate(step) for step in range(1, trainer.steps + 1)]
    rising = int(warmup * trainer.steps + 1e-9)
    assert trainer.steps == 100
    assert shares[:rising] == pytest.approx([step / (warmup * 100) for step in range(1, rising + 1)])
    assert 0.9 < max(shares) <= 1.0
    falling = shares[max(rising - 1, 0) :]
    assert falling == sorted(falling, reverse=True)
    assert 0.0 < shares[-1] < 0.03


def test_an_epoch_tells_its_number_loss_and_last_learning_rate() -> None:
    trainer = trainer_of(settings_of(epochs=2, learning_rate=0.2))
    heard: list[int] = []
    first, second = trainer.run_epoch(heard.append), trainer.run_epoch()
    assert (first.number, second.number, trainer.done) == (1, 2, 2)
    assert heard == [1, 2, 3, 4, 5]
    assert second.learning_rate == pytest.approx(0.2 * trainer.share_of_rate(10))
    assert 0.0 <= first.waiting <= 1.0
    assert 0.5 < first.loss < 5.0


def test_the_kept_weights_are_a_moving_average_of_those_of_each_step() -> None:
    settings = settings_of(epochs=2, average=0.4)
    seen: list[dict[str, Tensor]] = []
    model = network()
    trainer = trainer_of(settings, model)
    for _ in range(2):
        trainer.run_epoch(lambda _: seen.append(weights_of(model)))
    assert len(seen) == 10
    decay = 1.0 - 1.0 / 4.0
    expected = seen[0]
    for state in seen[1:]:
        expected = {name: decay * expected[name] + (1.0 - decay) * state[name] for name in state}
    found = trainer.result.state_dict()
    for name, tensor in expected.items():
        if tensor.is_floating_point() and found[name].is_floating_point():
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
    assert not torch.equal(found["stem_bn.running_mean"], seen[-1]["stem_bn.running_mean"])
    assert not torch.equal(found["stem.weight"], seen[-1]["stem.weight"])


def test_without_an_average_the_network_itself_is_kept() -> None:
    model = network()
    assert trainer_of(settings_of(average=0.0), model).result is model


@pytest.mark.parametrize("given", [{}, {"layout": "channels_last"}, {"average": 0.3}, {"dtype": "bfloat16"}])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_resumed_training_ends_as_one_that_was_not_interrupted(given: dict[str, str], dropout: float) -> None:
    settings = settings_of(epochs=4, augment="crop_flip", **given)
    whole = trainer_of(settings, network(dropout=dropout))
    expected = [whole.run_epoch().loss for _ in range(4)]
    half = trainer_of(settings, network(dropout=dropout))
    for _ in range(2):
        half.run_epoch()
    state = half.state()
    half.run_epoch()
    other = trainer_of(settings, network(seed=9, dropout=dropout))
    other.resume(state, 2)
    assert [other.run_epoch().loss for _ in range(2)] == expected[2:]
    assert other.done == 4
    assert equal(other.state(), whole.state())
    assert equal(weights_of(other.result), weights_of(whole.result))


def test_dropout_differs_from_epoch_to_epoch_and_from_seed_to_seed() -> None:
    seen: list[Tensor] = []

    class Dropping(nn.Dropout):
        def forward(self, input: Tensor) -> Tensor:
            seen.append(super().forward(torch.ones(64)))
            return super().forward(input)

    settings = settings_of(epochs=2)
    for seed in (0, 1):
        model = network()
        model.drop = Dropping(0.5)
        trainer = Trainer(model, batches_of(settings), settings, seed, Workers(CPU))
        trainer.run_epoch()
        trainer.run_epoch()
    masks = {tuple(mask.tolist()) for mask in seen}
    assert len(masks) == len(seen) == 20


def test_the_random_state_of_everything_else_is_left_as_it_was() -> None:
    trainer = trainer_of(settings_of(augment="crop_flip"), network(dropout=0.5))
    before = torch.get_rng_state()
    trainer.run_epoch()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("given", [{"learning_rate": 1e20}, {"learning_rate": 1e20, "average": 0.1}])
def test_a_training_that_diverges_is_stopped_by_the_name_of_the_learning_rate(given: dict[str, float]) -> None:
    trainer = trainer_of(settings_of(warmup=0.0, **given))
    with pytest.raises(EvaluationError, match=r"diverged in epoch 1, step 5 of 5.*Lower learning_rate \(given 1e\+20"):
        trainer.run_epoch()
    assert trainer.done == 0


def test_the_teacher_is_what_the_output_comes_near_to() -> None:
    teacher = network(seed=5).eval()
    before = weights_of(teacher)
    settings = settings_of(epochs=6, distillation=1.0, temperature=2.0, weight_decay=0.0)
    distances: dict[bool, float] = {}
    for taught in (False, True):
        model = network()
        trainer = trainer_of(settings, model, teacher if taught else None)
        for _ in range(6):
            trainer.run_epoch()
        images = torch.cat([images for images, _ in batches_of(settings).epoch(1)])
        with torch.no_grad():
            ours, theirs = (net.eval()(images).softmax(1) for net in (model, teacher))
        distances[taught] = float((ours - theirs).abs().sum(1).mean())
    assert distances[True] < 0.5 * distances[False]
    assert equal(weights_of(teacher), before)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def bright_images(count: int) -> ArraySource:
    """Images whose class is the one bright colour, as bytes."""
    found = planted_images(count)
    images = ((found.images + 1.0) * 64.0).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    arrays = LabelledArrays.from_arrays(images, found.targets.numpy(), "bright")
    return ArraySource("bright", 4, arrays, arrays, (0.25,) * 4, (0.25,) * 4)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_learns_in_every_execution(layout: Layout, dtype: NumberType) -> None:
    settings = settings_of(epochs=4, batch_size=16, layout=layout, dtype=dtype)
    source = bright_images(96)
    model = network(colours=4)
    trainer = Trainer(
        model,
        Batches(source, np.arange(96), settings, 0, Workers(CPU), TASK),
        settings,
        0,
        Workers(CPU),
        ExecutionSettings.for_training(layout, dtype),
    )
    losses = [trainer.run_epoch().loss for _ in range(4)]
    assert losses[-1] < 0.5 * losses[0]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    last = layout == "channels_last"
    assert model.up.weight.is_contiguous(memory_format=torch.channels_last) == last


def test_low_precision_changes_the_loss() -> None:
    losses = [trainer_of(settings_of(dtype=dtype)).run_epoch().loss for dtype in ("float32", "bfloat16")]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("average", [0.0, 0.3])
def test_measuring_the_kept_weights_does_not_change_them(average: float) -> None:
    trainer = trainer_of(settings_of(average=average), network(dropout=0.5))
    trainer.run_epoch()
    before = weights_of(trainer.result)
    with torch.no_grad():
        first, second = (trainer.result(image_set(8).images) for _ in range(2))
    assert torch.equal(first, second)
    assert equal(weights_of(trainer.result), before)


@pytest.mark.parametrize("average", [0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
def test_what_groups_read_is_not_averaged(average: float) -> None:
    model = network()
    chosen = [np.arange(number, model.out.in_channels, 2) for number in range(2)]
    model.out = GatheredConv2d.from_convolution(model.out, chosen)
    index = model.out.index.clone()
    trainer = trainer_of(settings_of(average=average, epochs=3), model)
    for _ in range(3):
        trainer.run_epoch()
    assert trainer.result is not model
    assert torch.equal(trainer.result.out.index, index)
    # A plan records which inputs are read; a file of weights does not.
    assert not [name for name in trainer.result.state_dict() if name.endswith("index")]
