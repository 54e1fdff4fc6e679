"""Recalibration: the statistics equal those of torch's own batch norms, and nothing else changes."""

import copy
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from toy import HALF, Watched, evaluator_of, image_set, statistics, toy_resnet, toy_walk
from zoo import Net, imprint, randomise

from prune_env.batch_norm.recalibration import BatchNorm, measuring, recalibrate
from prune_env.common.errors import DataError


class LeakyNorm(nn.BatchNorm2d):
    """A batch norm with its own forward pass."""

    def forward(self, maps: Tensor) -> Tensor:
        return nn.functional.leaky_relu(super().forward(maps), 0.3)


def by_torch(model: nn.Module, batches: Sequence[Tensor]) -> nn.Module:
    """Returns a copy whose batch norms torch itself recalibrated, in training mode and with ``momentum=None``."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.track_running_stats:
            module.reset_running_stats()
            module.momentum = None
            module.train()
    with torch.no_grad():
        for images in batches:
            model(images)
    return model.eval()


def assert_as_by_torch(
    model: nn.Module, batches: Sequence[Tensor], sole_readers: Sequence[str] = (), tolerance: float = 1e-5
) -> None:
    right = by_torch(model, batches)
    expected, before = statistics(right), copy.deepcopy(statistics(model))
    recalibrate(model, [batch.clone(memory_format=torch.preserve_format) for batch in batches], sole_readers)
    assert expected, "the network has no statistics"
    for name, tensor in statistics(model).items():
        assert torch.allclose(tensor, expected[name], rtol=tolerance, atol=tolerance), name
        assert not torch.allclose(tensor, before[name], rtol=tolerance, atol=tolerance), "nothing was measured"
    counts = {name: tensor for name, tensor in right.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {name: model.state_dict()[name] for name in counts}


def noise(*shapes: tuple[int, ...], mean: float = 0.7) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [mean + torch.randn(shape, generator=generator) for shape in shapes]


def chain(*modules: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return randomise(nn.Sequential(*modules)).eval()


class TestTheStatistics:
    @pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["last", "first"])
    @pytest.mark.parametrize("channels", [1, 3, 10, 13, 257])
    @pytest.mark.parametrize("side", [(1, 1), (7, 7), (3, 10), (16, 16)], ids=str)
    def test_are_torchs_own_in_every_layout(
        self, layout: torch.memory_format, channels: int, side: tuple[int, int]
    ) -> None:
        batches = [x.contiguous(memory_format=layout) for x in noise(*[(n, channels, *side) for n in (8, 8, 7)])]
        assert_as_by_torch(chain(nn.BatchNorm2d(channels)), batches)

    def test_are_torchs_own_where_channels_lie_far_from_zero(self) -> None:
        """Rounding would spoil a variance that is computed from a sum of squares."""
        (maps,) = noise((16, 6, 8, 8), mean=100.0)
        assert_as_by_torch(chain(nn.BatchNorm2d(6)), [maps.contiguous(memory_format=torch.channels_last)], (), 1e-4)

    def test_are_torchs_own_for_vectors(self) -> None:
        assert_as_by_torch(chain(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU()), noise((9, 6), (8, 6)))

    def test_are_torchs_own_for_maps_of_one_dimension(self) -> None:
        assert_as_by_torch(chain(nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5)), noise((9, 3, 12), (8, 3, 12)), ["1"])

    @pytest.mark.parametrize("sole_readers", [(), ("0",)], ids=["shared", "in place"])
    def test_are_torchs_own_for_bfloat16_maps(self, sole_readers: tuple[str, ...]) -> None:
        # Torch's own pass over bfloat16 maps sums in another order; sums kept in 16 bits would miss even 1e-2.
        batches = [
            x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last) for x in noise(*[(64, 6, 16, 16)] * 2)
        ]
        assert_as_by_torch(chain(nn.BatchNorm2d(6)), batches, sole_readers, tolerance=1e-4)

    def test_of_a_whole_network_are_torchs_own(self) -> None:
        batches = [image_set(16, seed=seed).images for seed in range(3)]
        assert_as_by_torch(toy_resnet().to(memory_format=torch.channels_last), batches, ["stem_bn", "down_bn", "up_bn"])

    def test_without_scale_and_shift_are_torchs_own(self) -> None:
        assert_as_by_torch(chain(nn.BatchNorm2d(5, affine=False), nn.BatchNorm2d(5)), noise((8, 5, 4, 4)), ["0"])

    def test_of_a_norm_used_twice_are_over_both_uses(self) -> None:
        net = Net(
            lambda net, x: net.norm(net.second(torch.relu(net.norm(net.first(x))))),
            first=nn.Conv2d(3, 5, 3),
            norm=nn.BatchNorm2d(5),
            second=nn.Conv2d(5, 5, 3),
        )
        assert_as_by_torch(randomise(net).eval(), noise((8, 3, 9, 9), (8, 3, 9, 9)))

    def test_of_one_norm_under_two_names_are_over_both_uses(self) -> None:
        norm = nn.BatchNorm2d(5)
        assert_as_by_torch(chain(norm, nn.Conv2d(5, 5, 3), norm), noise((8, 5, 9, 9)))

    def test_of_a_subclass_leave_its_own_forward_in_place(self) -> None:
        model = chain(nn.Conv2d(3, 5, 3), LeakyNorm(5), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4))
        assert_as_by_torch(model, noise((8, 3, 9, 9), (8, 3, 9, 9)))
        assert type(model[1]) is LeakyNorm

    def test_of_norms_that_are_called_through_a_plain_list_are_torchs_own(self) -> None:
        net = Net(lambda net, x: net.steps[1](net.steps[0](x)), conv=nn.Conv2d(3, 5, 3), norm=nn.BatchNorm2d(5))
        net.steps = [net.conv, net.norm]
        assert_as_by_torch(randomise(net).eval(), noise((8, 3, 9, 9)))

    def test_of_norms_whose_scale_the_network_reads_are_torchs_own(self) -> None:
        net = Net(lambda net, x: net.norm(net.conv(x)) * net.norm.weight.sum(), conv=nn.Conv2d(3, 5, 3))
        net.norm = nn.BatchNorm2d(5)
        assert_as_by_torch(randomise(net).eval(), noise((8, 3, 9, 9)))

    def test_do_not_depend_on_what_they_were(self) -> None:
        one, other = toy_resnet(), toy_resnet()
        for module in other.modules():
            if isinstance(module, BatchNorm):
                module.running_mean.fill_(math.inf)
                module.num_batches_tracked.fill_(100)
        for model in (one, other):
            recalibrate(model, [image_set(16, seed=seed).images for seed in range(3)])
        for name, tensor in statistics(one).items():
            assert torch.equal(tensor, statistics(other)[name])

    def test_weigh_every_image_alike_where_the_last_batch_is_smaller(self) -> None:
        walk, plan = toy_walk(), toy_walk().plan(HALF)
        calibration = image_set(33, seed=3)
        calibration.images[-1] += 5.0
        small = evaluator_of(walk, calibration=calibration, batch_size=16).pruned(plan)
        with torch.no_grad():
            maps = walk.model.stem(calibration.images)[:, list(plan.kept["stem"])]
        assert torch.allclose(small.stem_bn.running_mean, maps.mean((0, 2, 3)), atol=1e-5)


class TestComputingInPlace:
    def test_gives_the_same_statistics_and_the_same_output(self) -> None:
        shared, alone = toy_resnet(), toy_resnet()
        names = ["stem_bn", "down_bn", "up_bn"]
        images = image_set(16).images
        with torch.no_grad(), measuring(shared), measuring(alone, names):
            assert torch.equal(alone(images), shared(images))
        assert len(names) == sum(isinstance(module, BatchNorm) for module in alone.modules())
        for name, tensor in statistics(shared).items():
            assert torch.equal(tensor, statistics(alone)[name])

    @pytest.mark.parametrize(("sole_readers", "overwritten"), [((), False), (("",), True)])
    def test_overwrites_the_input_of_a_sole_reader_only(self, sole_readers: tuple[str, ...], overwritten: bool) -> None:
        model = chain(nn.BatchNorm2d(3))
        (maps,) = noise((4, 3, 5, 5))
        before = maps.clone()
        recalibrate(model, [maps], ["0"] if sole_readers else [])
        assert torch.equal(maps, before) is not overwritten

    def test_normalises_as_torch_does_in_training_mode(self) -> None:
        model = chain(nn.BatchNorm2d(3))
        (maps,) = noise((4, 3, 5, 5))
        expected = copy.deepcopy(model).train()(maps)
        with torch.no_grad(), measuring(model, ["0"]):
            assert torch.allclose(model(maps), expected, atol=1e-5)


class TestTheNetwork:
    @pytest.mark.parametrize("fails", [False, True])
    def test_is_put_back_as_it_was(self, fails: bool) -> None:
        def fail(*_: object) -> None:
            raise ValueError("mine")

        model = toy_resnet()
        model.stem_bn.momentum, model.down_bn.momentum = 0.3, None
        model.up_bn = randomise(LeakyNorm(16, momentum=0.01)).eval()
        children = list(model.named_modules())
        if fails:
            model.drop.register_forward_hook(fail)
            with pytest.raises(ValueError, match="mine"):
                recalibrate(model, [image_set(4).images])
        else:
            recalibrate(model, [image_set(4).images])
        assert list(model.named_modules()) == children
        assert not any(module.training for module in model.modules())
        assert [norm.momentum for norm in (model.stem_bn, model.down_bn, model.up_bn)] == [0.3, None, 0.01]

    def test_keeps_all_but_the_statistics(self) -> None:
        model = toy_resnet()
        before = {name: tensor.clone() for name, tensor in model.named_parameters()}
        recalibrate(model, [image_set(16).images], ["stem_bn"])
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())

    def test_leaves_dropout_off(self) -> None:
        with_dropout, without = toy_resnet(dropout=0.9), toy_resnet(dropout=0.0)
        for model in (with_dropout, without):
            recalibrate(model, [image_set(16).images])
        assert torch.equal(with_dropout.up_bn.running_mean, without.up_bn.running_mean)

    def test_keeps_batch_norms_without_statistics(self) -> None:
        model = toy_resnet()
        model.down_bn = nn.BatchNorm2d(12, track_running_stats=False).eval()
        untouched = imprint(model.down_bn)
        assert_as_by_torch(model, [image_set(16).images])
        assert model.down_bn.running_mean is None
        assert imprint(model.down_bn) == untouched

    def test_without_batch_norms_is_not_run(self) -> None:
        model = Watched().eval()
        for name in ("stem_bn", "down_bn", "up_bn"):
            setattr(model, name, nn.Identity())
        recalibrate(model, [image_set(16).images])
        assert model.passes == []


class TestOneValueAChannel:
    @pytest.mark.parametrize("norm", [nn.BatchNorm2d, LeakyNorm], ids=["plain", "own forward"])
    @pytest.mark.parametrize(("count", "batch_size"), [(1, 16), (4, 1)], ids=["one image", "batches of one"])
    def test_is_refused_with_the_way_out(self, norm: Callable[[int], nn.Module], count: int, batch_size: int) -> None:
        model = toy_resnet()
        model.project = nn.Sequential(model.project, nn.AdaptiveAvgPool2d(1), norm(16)).eval()
        momentum = model.stem_bn.momentum
        with pytest.raises(DataError, match=r"Raise data\.calibration_images and execution\.batch to 2 or more"):
            recalibrate(model, image_set(count).images.split(batch_size))
        assert not any(module.training for module in model.modules())
        assert model.stem_bn.momentum == momentum

    def test_does_not_come_of_a_last_batch_of_one_image(self) -> None:
        model = toy_resnet()
        model.project = nn.Sequential(model.project, nn.BatchNorm2d(16)).eval()
        model.fc = nn.Sequential(nn.Linear(16, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4)).eval()
        walk = toy_walk(model)
        evaluator = evaluator_of(walk, calibration=image_set(17), batch_size=16)
        assert math.isfinite(evaluator.evaluate(walk.plan({"stem": 4})).loss)
