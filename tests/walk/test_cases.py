"""Small networks that real users bring, after public reports, each with what is right for it."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, weight_norm
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import FrozenBatchNorm2d
from zoo import Net, body, chain, channels_zeroed, conv, random_plan, relative_difference, small_images, unit_of

from prune_env import LayerWalk
from prune_env.common.copying import copied
from prune_env.common.errors import ModelError
from prune_env.common.modes import unfused_attention
from prune_env.common.nested import tensors_of
from prune_env.testing.counts import counted_params
from prune_env.walk.example import Example
from prune_env.walk.proof import failing_units

TOLERANCE = 1e-4
INEXACT = "its cut would change what stays"


def run(model: nn.Module, example: Any) -> list[Tensor]:
    with torch.no_grad():
        return tensors_of(Example.given(example).run(model.eval()))


def counted(model: nn.Module, example: Any) -> int:
    with unfused_attention(), FlopCounterMode(display=False) as counter:
        run(model, example)
    return int(counter.get_total_flops()) // 2


def check(walk: LayerWalk, example: Any, seeds: int = 3) -> None:
    """Random plans compute what the dense network does with the cut channels zeroed, at the costs that are said."""
    for seed in range(seeds):
        plan = random_plan(walk, seed)
        small = plan.apply(walk.model)
        with channels_zeroed(walk.model, walk.units, plan.kept):
            expected = run(walk.model, example)
        assert relative_difference(run(small, example), expected) <= TOLERANCE
        assert walk.macs(plan.widths) == counted(small, example)
        assert walk.params(plan.widths) == counted_params(small)
    assert walk.macs() == counted(walk.model, example)
    assert walk.params() == counted_params(walk.model)


def free_of(walk: LayerWalk) -> dict[str, int]:
    return {unit.name: unit.channels for unit in walk.free}


def clipped(images: Tensor) -> Tensor:
    """Shortens the vector of channels at each position to a length of 20."""
    return images * (20 / images.square().sum(1, keepdim=True).sqrt().clamp_min(20))


class TestNormsOverChannelsWithAnAbsoluteScale:
    NORMS: Mapping[str, Callable[[Net, Tensor], Tensor]] = {
        "local response norm": lambda net, x: net.n(x),
        "a length clipped": lambda _, x: clipped(x),
    }

    @pytest.mark.parametrize("norm", NORMS)
    def test_are_protected_on_images_of_0_to_255(self, norm: str) -> None:
        images = small_images().sigmoid() * 255
        walk = LayerWalk.trace(body(self.NORMS[norm], n=nn.LocalResponseNorm(5)), images)
        assert free_of(walk) == {"z": 6}
        assert unit_of(walk, "a").protected

    @pytest.mark.parametrize("norm", NORMS)
    def test_are_seen_by_the_proof_whatever_the_rules_say(self, norm: str) -> None:
        images = small_images().sigmoid() * 255
        net = body(self.NORMS[norm], n=nn.LocalResponseNorm(5)).eval()
        exact = unit_of(LayerWalk.trace(body(lambda _, x: x), images), "a")
        assert list(failing_units(net, Example.given(images), [exact])) == ["a"]
        assert failing_units(body(lambda _, x: x).eval(), Example.given(images), [exact]) == {}


class Net2(Net):
    """A network of two inputs."""

    def forward(self, images: Tensor, mask: Tensor) -> Any:  # type: ignore[override]
        return self.run(self, images, mask)


class Scaled(nn.Conv2d):
    """A convolution that takes a factor before its images."""

    def forward(self, factor: float, images: Tensor) -> Tensor:  # type: ignore[override]
        return factor * super().forward(images)


class Masking(nn.Conv2d):
    """A convolution that returns a mask beside its map."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        result = super().forward(images)
        return result, result > 0


class Attention(nn.Module):
    """Attention over positions, its queries, keys and values written by one convolution."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = conv(channels, 3 * channels, 1)
        self.out = conv(channels, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        parts = self.qkv(images).reshape(count, 3, self.heads, -1, height * width)
        queries, keys, values = parts.unbind(1)
        weights = (queries.transpose(2, 3) @ keys).softmax(-1)
        return images + self.out((values @ weights.transpose(2, 3)).reshape(count, -1, height, width))


class GlobalContext(nn.Module):
    """A sum over positions weighted by one map, transformed and added to each position."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.weigh = conv(channels, 1, 1)
        self.down, self.norm, self.up = conv(channels, inner, 1), nn.LayerNorm([inner, 1, 1]), conv(inner, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        count, channels = images.shape[:2]
        weights = self.weigh(images).view(count, 1, -1).softmax(2)
        context = images.view(count, channels, -1).unsqueeze(1) @ weights.unsqueeze(3)
        return images + self.up(torch.relu(self.norm(self.down(context.view(count, channels, 1, 1)))))


class PartialShortcut(nn.Module):
    """Adds its input to the first channels of what its convolution writes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.c = conv(inputs, outputs)

    def forward(self, images: Tensor) -> Tensor:
        written = self.c(images)
        size = images.shape[1]
        return torch.cat([written[:, :size] + images, written[:, size:]], 1)


class C2f(nn.Module):
    """A stage of YOLOv8: half of a convolution's channels run through blocks, all halves are read together."""

    def __init__(self, channels: int, divide: str, shortcut: bool = True) -> None:
        super().__init__()
        self.c = channels // 2
        self.divide, self.shortcut = divide, shortcut
        self.cv1, self.cv2 = conv(channels, channels, 1), conv(2 * channels, channels, 1)
        self.m = nn.ModuleList(nn.Sequential(conv(self.c, self.c), nn.SiLU(), conv(self.c, self.c)) for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        both = self.cv1(images)
        parts = list(both.chunk(2, 1) if self.divide == "chunk" else both.split((self.c, self.c), 1))
        for block in self.m:
            parts.append(block(parts[-1]) + (parts[-1] if self.shortcut else 0))
        return self.cv2(torch.cat(parts, 1))


class TestNetworksOnWhichTracingDidNotEnd:
    def test_attention_whose_parts_are_reshaped_out_of_one_convolution(self) -> None:
        start = time.monotonic()
        walk = LayerWalk.trace(body(lambda net, x: net.t(x), 4, 4, t=Attention(4, 2)), small_images())
        assert time.monotonic() - start < 5
        assert free_of(walk) == {"a": 4, "z": 6}
        check(walk, small_images())

    def test_a_global_context(self) -> None:
        start = time.monotonic()
        walk = LayerWalk.trace(body(lambda net, x: net.t(x), 16, 16, t=GlobalContext(16, 4)), small_images())
        assert time.monotonic() - start < 5
        assert free_of(walk) == {"a": 16, "z": 6}
        assert INEXACT in (unit_of(walk, "t.down").protected or "")
        check(walk, small_images())

    def test_a_shortcut_to_the_first_channels(self) -> None:
        start = time.monotonic()
        walk = LayerWalk.trace(body(lambda net, x: net.t(x), 13, t=PartialShortcut(8, 13)), small_images())
        assert time.monotonic() - start < 5
        assert free_of(walk) == {"a": 8, "t.c": 5, "z": 6}
        check(walk, small_images())

    def test_a_shortcut_to_the_first_two_thirds_of_the_channels(self) -> None:
        walk = LayerWalk.trace(body(lambda net, x: net.t(x), 12, t=PartialShortcut(8, 12)), small_images())
        check(walk, small_images())
        assert free_of(walk) == {"a": 8, "t.c": 4, "z": 6}

    @pytest.mark.parametrize("shortcut", [True, False])
    def test_a_stage_that_splits_its_channels_is_the_same_with_split_and_chunk(self, shortcut: bool) -> None:
        walks = [
            LayerWalk.trace(body(lambda net, x: net.t(x), t=C2f(8, divide, shortcut)), small_images())
            for divide in ("split", "chunk")
        ]
        assert free_of(walks[0]) == free_of(walks[1])
        assert {"a", "t.cv1", "t.cv2", "z"} <= set(free_of(walks[0]))
        for walk in walks:
            assert walk.reach() > 0.8
            check(walk, small_images())

    @pytest.mark.parametrize("batch", [1, 2])
    def test_a_network_of_convolutions_and_relus_in_place_has_all_its_units(self, batch: int) -> None:
        net = nn.Sequential(conv(3, 8), nn.ReLU(True), conv(8, 6), nn.ReLU(True), conv(6, 5), nn.ReLU(True), conv(5, 4))
        walk = LayerWalk.trace(net, small_images(batch))
        assert [unit.name for unit in walk.units] == ["0", "2", "4", "6"]
        assert free_of(walk) == {"0": 8, "2": 6, "4": 5}
        check(walk, small_images())


@dataclass
class Result:
    """What a network may return."""

    scores: Tensor
    note: str = "for the test"
    more: Tensor | None = None


class Keeps(nn.Module):
    """Keeps its last map in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = conv(3, 8), conv(8, 4)
        self.kept: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.kept = self.c(images)
        return self.d(self.kept.relu())


class ByKeyword(nn.Module):
    """Calls its layers by keyword, or by position."""

    def __init__(self, keyword: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c, self.n, self.d, self.o = conv(3, 8), nn.BatchNorm2d(8), conv(8, 6), nn.Linear(6, 4)
        self.keyword = keyword

    def forward(self, images: Tensor) -> Tensor:
        if not self.keyword:
            return self.o(self.d(self.n(self.c(images)).relu()).mean((2, 3)))
        return self.o(input=self.d(input=self.n(input=self.c(input=images)).relu()).mean((2, 3)))


class Siamese(nn.Module):
    """One encoder for two images, and a layer that reads how they differ."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d, self.fc = conv(3, 8), conv(8, 6), nn.Linear(6, 2)

    def encoded(self, images: Tensor) -> Tensor:
        return self.d(self.c(images).relu()).mean((2, 3))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return self.fc((self.encoded(one) - self.encoded(other)).abs())


class TestNetworksThatAreCalledInTheirOwnWay:
    def test_one_that_keeps_a_map_in_an_attribute(self) -> None:
        net = Keeps()
        net(small_images()).sum().backward()
        walk = LayerWalk.trace(net, small_images())
        assert free_of(walk) == {"c": 8}
        check(walk, small_images())

    def test_one_whose_layers_are_called_by_keyword(self) -> None:
        net, plain = ByKeyword(keyword=True), ByKeyword(keyword=False)
        walk = LayerWalk.trace(net, small_images())
        assert free_of(walk) == {"c": 8, "d": 6}
        check(LayerWalk.trace(plain, small_images()), small_images())
        for seed in range(3):
            plan = random_plan(walk, seed)
            same = random_plan(LayerWalk.trace(plain, small_images()), seed)
            found, expected = run(plan.apply(net), small_images()), run(same.apply(plain), small_images())
            assert relative_difference(found, expected) <= TOLERANCE

    def test_one_that_takes_two_inputs(self) -> None:
        example = (small_images(), small_images(1, 1))
        walk = LayerWalk.trace(Siamese(), example)
        assert free_of(walk) == {"c": 8, "d": 6}
        check(walk, example)

    def test_one_that_takes_an_input_by_keyword(self) -> None:
        walk = LayerWalk.trace(Siamese(), small_images(), keywords={"other": small_images(1, 1)})
        assert free_of(walk) == {"c": 8, "d": 6}

    def test_one_that_takes_a_mapping(self) -> None:
        net = Net(lambda net, x: net.d(net.c(x["images"]).relu()), c=conv(3, 8), d=conv(8, 4))
        walk = LayerWalk.trace(net, {"images": small_images(), "sizes": torch.tensor([8])})
        assert free_of(walk) == {"c": 8}
        check(walk, {"images": small_images(), "sizes": torch.tensor([8])})

    def test_one_that_takes_a_list_of_images_of_different_sizes(self) -> None:
        net = Net(lambda net, x: [net.d(net.c(one[None]).relu()) for one in x], c=conv(3, 8), d=conv(8, 4))
        images = [torch.randn(3, 8, 8), torch.randn(3, 6, 9)]
        walk = LayerWalk.trace(net, images)
        assert free_of(walk) == {"c": 8}
        check(walk, images)

    @pytest.mark.parametrize(
        "returned",
        [
            lambda scores: (scores, None),
            lambda scores: Result(scores),
            lambda scores: {"scores": [scores], "names": ["one"], "count": 3},
            lambda scores: torch.return_types.max((scores, scores)),
        ],
        ids=["a tuple with None", "a dataclass", "a mapping with names", "a named tuple"],
    )
    def test_one_that_returns_more_than_tensors(self, returned: Callable[[Tensor], Any]) -> None:
        net = Net(lambda net, x: returned(net.d(net.c(x).relu())), c=conv(3, 8), d=conv(8, 4))
        walk = LayerWalk.trace(net, small_images())
        assert free_of(walk) == {"c": 8}
        assert unit_of(walk, "d").protected == "its channels are the network's output"
        check(walk, small_images())

    def test_one_that_returns_numpy_arrays(self) -> None:
        net = Net(lambda net, x: net.d(net.c(x).relu()).detach().numpy(), c=conv(3, 8), d=conv(8, 4))
        walk = LayerWalk.trace(net, small_images())
        assert free_of(walk) == {"c": 8}
        assert unit_of(walk, "d").protected
        check(walk, small_images())

    def test_one_whose_second_head_runs_in_training_mode_only_can_be_trained_when_cut(self) -> None:
        net = Net(
            lambda net, x: (net.d(net.c(x)), net.e(net.c(x))) if net.training else net.d(net.c(x)),
            c=conv(3, 8),
            d=conv(8, 4),
            e=conv(8, 2),
        ).train()
        walk = LayerWalk.trace(net, small_images())
        assert net.training
        assert free_of(walk) == {"c": 8}
        assert not walk.idle
        check(walk, small_images())
        small = random_plan(walk, 0).apply(net).train()
        assert [one.shape[1] for one in small(small_images())] == [4, 2]

    def test_one_that_normalises_its_input_in_place(self) -> None:
        def forward(net: Net, images: Tensor) -> Tensor:
            images -= 0.5
            return net.d(torch.relu(net.c(images)))

        images = small_images()
        before = images.clone()
        walk = LayerWalk.trace(Net(forward, c=conv(3, 8), d=conv(8, 4)), images)
        assert free_of(walk) == {"c": 8}
        assert torch.equal(images, before)

    def test_one_that_returns_an_object_of_its_own(self) -> None:
        def forward(net: Net, images: Tensor) -> Any:
            features = torch.relu(net.c(images))
            return SimpleNamespace(scores=net.d(features.mean((2, 3), keepdim=True)), features=features)

        walk = LayerWalk.trace(Net(forward, c=conv(3, 8), d=conv(8, 4, 1)), small_images())
        assert unit_of(walk, "c").protected == "its channels are the network's output"

    def test_one_whose_layers_take_other_arguments_first(self) -> None:
        walk = LayerWalk.trace(
            Net(lambda net, x: net.d(torch.relu(net.c(0.5, x))), c=Scaled(3, 8, 3, padding=1), d=conv(8, 4)),
            small_images(),
        )
        assert free_of(walk) == {"c": 8}
        walk = LayerWalk.trace(
            Net(lambda net, x: net.d(2.0, torch.relu(net.c(x))), c=conv(3, 8), d=Scaled(8, 4, 3)), small_images()
        )
        assert free_of(walk) == {"c": 8}

    def test_one_whose_layer_returns_more_than_its_map(self) -> None:
        walk = LayerWalk.trace(
            Net(lambda net, x: net.d(torch.relu(net.c(x)[0])), c=Masking(3, 8, 3), d=conv(8, 4)), small_images()
        )
        assert free_of(walk) == {"c": 8}

    def test_one_that_refuses_channels_of_zeros_is_protected_with_its_own_words(self) -> None:
        def forward(net: Net, images: Tensor) -> Tensor:
            inner = net.w(torch.relu(net.c(images)))
            if (inner.detach().numpy() == 0).all(axis=(0, 2, 3)).any():
                raise ValueError("a channel is silent")
            return net.d(inner)

        net = Net(forward, c=conv(3, 8), w=conv(8, 8, groups=8, bias=False), d=conv(8, 4))
        reason = unit_of(LayerWalk.trace(net, small_images()), "c").protected
        assert reason == "the network refuses channels of zeros: a channel is silent"

    def test_one_with_a_list_of_parameters(self) -> None:
        gains = nn.ParameterList([nn.Parameter(torch.rand(8, 1, 1))])
        walk = LayerWalk.trace(
            Net(lambda net, x: net.d(torch.relu(net.c(x)) * net.g[0]), c=conv(3, 8), d=conv(8, 4), g=gains),
            small_images(),
        )
        assert free_of(walk) == {"c": 8}
        check(walk, small_images())

    def test_one_whose_number_of_classes_equals_a_width_keeps_it(self) -> None:
        class Halves(Net):
            num_classes = 6

            def loss(self, targets: Tensor) -> Tensor:
                return torch.nn.functional.one_hot(targets, self.num_classes)

            def forward(self, images: Tensor) -> Tensor:
                left, right = torch.relu(self.a(images)).chunk(2, 1)
                return self.c(left * right)

        net = Halves(lambda *_: None, a=conv(3, 12), c=conv(6, 4))
        net.num_classes = 6
        walk = LayerWalk.trace(net, small_images())
        assert free_of(walk) == {"a": 6}
        assert walk.plan({"a": 3}).apply(net).num_classes == 6

    def test_one_that_holds_an_open_file_and_itself(self, tmp_path: Path) -> None:
        net = chain()
        with (tmp_path / "log").open("w") as file:
            net.log = [file, {"lock": threading.Lock()}]
            net.log.append(net.log)
            assert free_of(LayerWalk.trace(net, small_images())) == {"0": 8, "3": 6}

    def test_one_whose_head_refers_back_to_it(self) -> None:
        net = chain()
        net[0].owner = [net]
        net[6].lock = threading.Lock()
        walk = LayerWalk.trace(net, small_images())
        assert free_of(walk) == {"0": 8, "3": 6}
        copy = copied(net)
        assert copy[0].owner[0] is copy

    def test_one_whose_lock_lies_beside_a_counter(self) -> None:
        net = chain()
        net.state = {"lock": threading.Lock(), "seen": [0]}
        net.register_forward_hook(lambda module, *_: module.state["seen"].__setitem__(0, module.state["seen"][0] + 1))
        LayerWalk.trace(net, small_images())
        assert net.state["seen"] == [0]

    def test_one_that_holds_a_lock(self) -> None:
        net = chain()
        net.lock = threading.Lock()
        walk = LayerWalk.trace(net, small_images())
        assert free_of(walk) == {"0": 8, "3": 6}
        check(walk, small_images())

    def test_a_half_network_whose_code_names_its_type_is_told_so(self) -> None:
        net = Net(lambda net, x: net.d(torch.relu(net.c(x.half()))), c=conv(3, 8), d=conv(8, 4)).half()
        with pytest.raises(ModelError, match="walked as a float32 copy; code that names float16"):
            LayerWalk.trace(net, small_images().half())

    def test_an_example_with_nan_is_refused_and_an_infinite_mask_is_kept(self) -> None:
        images = small_images()
        images[0, 0, 0, 0] = torch.nan
        with pytest.raises(ModelError, match="The example holds NaN"):
            LayerWalk.trace(chain(), images)
        mask = torch.zeros(1, 1, 8, 8)
        mask[..., 4:] = -torch.inf
        net = Net2(lambda net, x, m: net.d(torch.relu(net.c(x)) * (m.exp())), c=conv(3, 8), d=conv(8, 4))
        assert free_of(LayerWalk.trace(net, (small_images(), mask))) == {"c": 8}

    @pytest.mark.parametrize("model_too", [False, True])
    def test_an_example_or_weights_without_values_are_refused_with_what_to_do(self, model_too: bool) -> None:
        with pytest.raises(ModelError, match=r"meta device.*(Give a tensor with values|Load the network's weights)"):
            LayerWalk.trace(chain().to("meta") if model_too else chain(), small_images().to("meta"))

    def test_a_compiled_network_is_unwrapped(self) -> None:
        compiled = torch.compile(chain(), backend="eager")
        walk = LayerWalk.trace(compiled, small_images())
        assert walk.model is compiled._orig_mod
        assert free_of(walk) == {"0": 8, "3": 6}

    def test_a_compiled_network_that_has_run_is_unwrapped(self) -> None:
        compiled = torch.compile(chain().eval(), backend="eager")
        compiled(small_images())
        walk = LayerWalk.trace(compiled, small_images())
        assert free_of(walk) == {"0": 8, "3": 6}
        check(walk, small_images())

    @pytest.mark.parametrize("way", ["no_grad", "inference_mode", "detach", "checkpoint", "reentrant checkpoint"])
    def test_layers_that_run_without_a_graph_have_units(self, way: str) -> None:
        def middle(net: Net, images: Tensor) -> Tensor:
            if way in ("no_grad", "inference_mode"):
                with getattr(torch, way)():
                    return net.c(images).relu()
            if way == "detach":
                return net.c(images.detach()).detach().relu()
            return checkpoint(lambda x: net.c(x).relu(), images, use_reentrant=way.startswith("reentrant"))

        walk = LayerWalk.trace(body(middle, 5, c=conv(8, 5)), small_images())
        assert free_of(walk) == {"a": 8, "c": 5, "z": 6}
        check(walk, small_images())

    @pytest.mark.parametrize(
        ("noise", "name"),
        [
            (lambda x: x + 0.1 * torch.randn_like(x), "randn_like"),
            (lambda x: F.dropout(x, 0.5, training=True), "bernoulli"),
            (lambda x: x * torch.rand(1), "rand"),
        ],
        ids=["noise", "dropout", "a random number"],
    )
    def test_noise_that_is_always_on_is_named(self, noise: Callable[[Tensor], Tensor], name: str) -> None:
        walk = LayerWalk.trace(body(lambda _, x: noise(x)), small_images())
        assert walk.free == ()
        for unit in walk.units[:-1]:
            assert "the network is not deterministic" in (unit.protected or "")
            assert name in (unit.protected or "")


class OwnConvolution(nn.Module):
    """A convolution with a weight of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(outputs, inputs, 3, 3) / 9)

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.kernel, padding=1)


class BlurPool(nn.Module):
    """A fixed blur of each channel by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])[None, None] / 16)

    def forward(self, images: Tensor) -> Tensor:
        count = images.shape[1]
        return F.conv2d(images, self.kernel.expand(count, -1, -1, -1), stride=2, padding=1, groups=count)


class Gained(nn.Conv2d):
    """A convolution with a parameter beside weight and bias."""

    def __init__(self, *sizes: int, **settings: Any) -> None:
        super().__init__(*sizes, **settings)
        self.gain = nn.Parameter(torch.ones(()))
        self.table = nn.Parameter(torch.ones(3, 5))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.gain * self.table.mean()


def recurrent(kind: type[nn.RNNBase]) -> Net:
    """A recurrent layer over the columns of a map."""
    return Net(
        lambda net, x: net.fc(net.r(net.d(net.c(x).relu()).mean(2).transpose(1, 2))[0][:, -1]),
        c=conv(3, 8),
        d=conv(8, 6),
        r=kind(6, 5, batch_first=True),
        fc=nn.Linear(5, 4),
    )


def scaled_attention(net: Net, images: Tensor) -> Tensor:
    """Attention of two heads over positions, by torch's own function."""
    parts = [part(images).view(len(images), 2, -1, 64).transpose(2, 3) for part in (net.q, net.k, net.v)]
    attended = F.scaled_dot_product_attention(*parts).transpose(2, 3)
    return net.o(attended.reshape(len(images), -1, 8, 8))


COSTS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "transposed": (
        lambda: body(lambda net, x: net.u(net.t(x)), 5,
                     t=nn.ConvTranspose2d(8, 7, 3, 2), u=nn.ConvTranspose2d(7, 5, 2, 2)),
        {"a", "t", "u", "z"},
    ),
    "transposed of one dimension": (
        lambda: body(lambda net, x: net.t(x.flatten(2))[:, :, None], 5, t=nn.ConvTranspose1d(8, 5, 3, 2)),
        {"a", "t", "z"},
    ),
    "transposed and grouped": (
        lambda: body(lambda net, x: net.t(x), 12, t=nn.ConvTranspose2d(8, 12, 3, 2, groups=4)), {"a", "t", "z"}
    ),
    "a convolution as a function": (
        lambda: body(lambda net, x: F.conv2d(x, net.w, padding=1), w=nn.Parameter(torch.randn(8, 8, 3, 3) / 9)), {"z"}
    ),
    "a convolution of one's own": (lambda: body(lambda net, x: net.o(x), o=OwnConvolution(8, 8)), {"z"}),
    "blur pooling": (lambda: body(lambda net, x: net.p(x), p=BlurPool()), {"a", "z"}),
    "attention": (lambda: body(lambda net, x: net.t(x), t=Attention(8, 2)), {"a", "z"}),
    "attention whose values are a layer of their own": (
        lambda: body(scaled_attention, q=conv(8, 8, 1), k=conv(8, 8, 1), v=conv(8, 8, 1), o=conv(8, 8, 1)),
        {"a", "v", "o", "z"},
    ),
    "multi-head attention": (
        lambda: body(
            lambda net, x: net.t(*[x.flatten(2).transpose(1, 2)] * 3)[0].transpose(1, 2).reshape(x.shape),
            t=nn.MultiheadAttention(8, 2, batch_first=True),
        ),
        {"z"},
    ),
    "long short-term memory": (lambda: recurrent(nn.LSTM), {"c"}),
    "gated recurrent units": (lambda: recurrent(nn.GRU), {"c"}),
    "parameters beside weight and bias": (lambda: body(lambda net, x: net.g(x), 5, g=Gained(8, 5, 3)), {"a", "g", "z"}),
    "a parameter that nothing reads": (
        lambda: body(lambda _, x: x, unused=nn.Parameter(torch.ones(4, 7))), {"a", "z"}
    ),
    "a dilated and strided stem": (
        lambda: body(lambda net, x: net.c(x), 5, c=conv(8, 5, stride=2, dilation=2)), {"a", "c", "z"}
    ),
    "a bilinear layer": (
        lambda: body(
            lambda net, x: net.b(x.mean((2, 3)), x.amax((2, 3)))[..., None, None], 5, b=nn.Bilinear(8, 8, 5)
        ),
        {"z"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", COSTS)
def test_costs_are_those_that_torch_counts(shape: str) -> None:
    network, free = COSTS[shape]
    walk = LayerWalk.trace(network(), small_images())
    assert set(free_of(walk)) == free
    check(walk, small_images(), seeds=4)


def frozen_resnet18() -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return model


def eca(channels: int = 8) -> Net:
    def middle(net: Net, images: Tensor) -> Tensor:
        gate = net.e(images.mean((2, 3)).unsqueeze(1)).sigmoid()
        return images * gate.transpose(1, 2).unsqueeze(3)

    return body(middle, channels, channels, e=nn.Conv1d(1, 1, 3, padding=1, bias=False))


class Cbam(nn.Module):
    """A gate of each channel, then a gate of each position that reads mean and maximum over the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up, self.place = conv(channels, 4, 1), conv(4, channels, 1), conv(2, 1, 7)

    def forward(self, images: Tensor) -> Tensor:
        pooled = (images.mean((2, 3), keepdim=True), images.amax((2, 3), keepdim=True))
        images = images * sum(self.up(torch.relu(self.down(one))) for one in pooled).sigmoid()
        both = torch.cat([images.mean(1, keepdim=True), images.amax(1, keepdim=True)], 1)
        return images * self.place(both).sigmoid()


class ResponseNorm(nn.Module):
    """Global response norm of ConvNeXt V2: each channel's length over the mean of all lengths."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(1, channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        length = images.norm(dim=(2, 3), keepdim=True)
        return images + self.gamma * images * length / (length.mean(1, keepdim=True) + 1e-6)


class Standardised(nn.Conv2d):
    """A convolution that standardises its weight when it runs."""

    def forward(self, images: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (self.weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(images, weight, self.bias, self.stride, self.padding)


INEXACT_BY_NATURE: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "efficient channel attention": (eca, {"z"}),
    "convolutional block attention": (lambda: body(lambda net, x: net.g(x), g=Cbam(8)), {"g.down", "z"}),
    "global response norm": (lambda: body(lambda net, x: net.n(x), n=ResponseNorm(8)), {"z"}),
    "weight standardisation": (lambda: body(lambda net, x: net.s(x), s=Standardised(8, 8, 3, padding=1)), {"z"}),
    "layer norm": (
        lambda: body(lambda net, x: net.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.LayerNorm(8)), {"z"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", INEXACT_BY_NATURE)
def test_what_is_inexact_by_nature_is_protected_with_that_reason(shape: str) -> None:
    network, free = INEXACT_BY_NATURE[shape]
    walk = LayerWalk.trace(network(), small_images())
    assert unit_of(walk, "a").channels == 8
    assert (unit_of(walk, "a").protected or "").startswith(INEXACT)
    assert set(free_of(walk)) == free
    check(walk, small_images())


class TestNetworksThatAreCutExactly:
    def test_frozen_batch_norms_leave_12_of_13_units_free(self) -> None:
        images = torch.randn(1, 3, 64, 64)
        walk = LayerWalk.trace(frozen_resnet18(), images)
        assert (len(walk.free), len(walk.units)) == (12, 13)
        check(walk, images, seeds=2)

    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
    def test_short_numbers_leave_12_of_13_units_free(self, kind: torch.dtype) -> None:
        torch.manual_seed(0)
        model = torchvision.models.resnet18().eval().to(kind)
        walk = LayerWalk.trace(model, torch.randn(1, 3, 64, 64).to(kind))
        assert (len(walk.free), len(walk.units)) == (12, 13)
        small = random_plan(walk, 0).apply(model)
        assert {tensor.dtype for tensor in small.parameters()} == {kind}
        assert {tensor.dtype for tensor in model.parameters()} == {kind}

    @pytest.mark.parametrize(
        "compute",
        [weight_norm, parametrizations.weight_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.3)],
        ids=["weight norm", "weight norm as a parametrization", "a prune mask"],
    )
    def test_a_computed_weight_protects_only_what_its_layer_reads_and_writes(
        self, compute: Callable[[nn.Module], Any]
    ) -> None:
        net = body(lambda net, x: net.d(net.c(net.b(x).relu()).relu()), 5, b=conv(8, 7), c=conv(7, 6), d=conv(6, 5))
        compute(net.c)
        walk = LayerWalk.trace(net, small_images())
        assert free_of(walk) == {"a": 8, "d": 5, "z": 6}
        for name in ("b", "c"):
            assert "'c' computes its weight" in (unit_of(walk, name).protected or "")
            assert "prune.remove" in (unit_of(walk, name).protected or "")
        check(walk, small_images())

    def test_a_layer_that_is_computed_and_ends_the_network_leaves_the_rest_free(self) -> None:
        net = body(lambda _, x: x)
        weight_norm(net.fc)
        walk = LayerWalk.trace(net, small_images())
        assert free_of(walk) == {"a": 8}


class UNet(nn.Module):
    """Two scales, bilinear upsampling, and a concatenation with what the first scale wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.up, self.end = conv(3, 8), conv(8, 10), conv(18, 8), conv(8, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.down(images).relu()
        deep = self.deep(F.max_pool2d(first, 2)).relu()
        wide = F.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=True)
        return self.end(self.up(torch.cat([first, wide], 1)).relu())


class Pyramid(nn.Module):
    """Two levels with lateral convolutions, and one head that both share, whose outputs are flattened and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(3, 8), conv(8, 12, stride=2)
        self.left, self.right = conv(8, 10, 1), conv(12, 10, 1)
        self.head, self.classes, self.boxes = conv(10, 9), conv(9, 2 * 3), conv(9, 2 * 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        first = self.one(images).relu()
        second = self.two(first).relu()
        top = self.right(second)
        levels = [self.left(first) + F.interpolate(top, size=first.shape[2:]), top]
        inner = [self.head(level).relu() for level in levels]
        classes = [self.classes(one).permute(0, 2, 3, 1).reshape(len(images), -1, 3) for one in inner]
        boxes = [self.boxes(one).permute(0, 2, 3, 1).reshape(len(images), -1, 4) for one in inner]
        return torch.cat(classes, 1), torch.cat(boxes, 1)


class CoordinateAttention(nn.Module):
    """Gates of rows and of columns, from maps that are joined, convolved and split again."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.c, self.n = conv(channels, inner, 1), nn.BatchNorm2d(inner)
        self.rows, self.columns = conv(inner, channels, 1), conv(inner, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        rows = images.mean(3, keepdim=True)
        columns = images.mean(2, keepdim=True).permute(0, 1, 3, 2)
        both = F.hardswish(self.n(self.c(torch.cat([rows, columns], 2))))
        rows, columns = both.split([height, width], 2)
        return images * self.rows(rows).sigmoid() * self.columns(columns.permute(0, 1, 3, 2)).sigmoid()


class RepVgg(nn.Module):
    """Three branches that are added: 3x3, 1x1, and a batch norm of the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide, self.narrow = conv(channels, channels, bias=False), conv(channels, channels, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        wide, narrow, own = self.norms
        return torch.relu(wide(self.wide(images)) + narrow(self.narrow(images)) + own(images))


class MobileOne(nn.Module):
    """Several depthwise branches that are added, then several 1x1 branches that are added."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.ModuleList(
            nn.Sequential(conv(channels, channels, size, groups=channels, bias=False), nn.BatchNorm2d(channels))
            for size in (3, 3, 1)
        )
        self.pointwise = nn.ModuleList(
            nn.Sequential(conv(channels, outputs, 1, bias=False), nn.BatchNorm2d(outputs)) for _ in range(2)
        )
        self.skip = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        images = torch.relu(self.skip(images) + sum(branch(images) for branch in self.depthwise))
        return torch.relu(sum(branch(images) for branch in self.pointwise))


class Excitation(nn.Module):
    """Squeeze and excitation with linear layers, in three spellings."""

    def __init__(self, channels: int, inner: int, spelling: str) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(True), nn.Linear(inner, channels), nn.Sigmoid())
        self.spelling = spelling

    def forward(self, images: Tensor) -> Tensor:
        count, channels = images.shape[:2]
        if self.spelling == "view":
            return images * self.fc(self.pool(images).view(count, channels)).view(count, channels, 1, 1).expand_as(
                images
            )
        if self.spelling == "flatten":
            return images * self.fc(self.pool(images).flatten(1))[:, :, None, None]
        return images.mul_(self.fc(images.mean((-2, -1))).unsqueeze(-1).unsqueeze(-1))


def signal() -> Net:
    return Net(
        lambda net, x: net.fc(net.d(F.max_pool1d(net.c(x.flatten(2)).relu(), 4)).relu().flatten(1)),
        c=nn.Conv1d(3, 8, 5, padding=2),
        d=nn.Conv1d(8, 6, 3, padding=1),
        fc=nn.Linear(96, 4),
    )


HELD: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "a bilinear U-Net": (UNet, {"down": 8, "deep": 10, "up": 8}),
    "pyramid levels that share a head": (Pyramid, {"one": 8, "two": 12, "right": 10, "head": 9}),
    "coordinate attention": (
        lambda: body(lambda net, x: net.t(x), t=CoordinateAttention(8, 4)), {"a": 8, "t.c": 4, "z": 6}
    ),
    "RepVGG": (lambda: body(lambda net, x: net.t(x), t=RepVgg(8)), {"a": 8, "z": 6}),
    "MobileOne": (
        lambda: body(lambda net, x: net.t(x), 10, t=MobileOne(8, 10)), {"a": 8, "t.pointwise.0.0": 10, "z": 6}
    ),
    **{
        f"squeeze and excitation by {spelling}": (
            lambda spelling=spelling: body(lambda net, x: net.t(x), t=Excitation(8, 4, spelling)),
            {"a": 8, "t.fc.0": 4, "z": 6},
        )
        for spelling in ("view", "flatten", "unsqueeze")
    },
    "squeeze and excitation by convolutions": (
        lambda: body(lambda net, x: net.u(F.relu(net.d(F.adaptive_avg_pool2d(x, 1)))).sigmoid() * x,
                     d=conv(8, 4, 1), u=conv(4, 8, 1)),
        {"a": 8, "d": 4, "z": 6},
    ),
    "a convolution over signals and a flatten": (signal, {"c": 8, "d": 6}),
    "a size written into a view": (
        lambda: body(lambda net, x: net.t(F.adaptive_avg_pool2d(x, 2).view(-1, 32))[..., None, None], 5,
                     t=nn.Linear(32, 5)),
        {"t": 5, "z": 6},
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", HELD)
def test_what_was_right_stays_right(shape: str) -> None:
    network, free = HELD[shape]
    torch.manual_seed(0)
    walk = LayerWalk.trace(network(), small_images())
    assert free_of(walk) == free
    check(walk, small_images())
