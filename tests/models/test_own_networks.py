import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from prune_env.common.errors import WeightsError
from prune_env.data import ArraySource, load_source
from prune_env.models import build_model, load_weights

# Parameters, and MACs of convs and linear layers, at the size that the network is for.
GOLDEN = [
    ("cifar_resnet20", 3, 32, 269_722, 40_551_040),
    ("cifar_resnet32", 3, 32, 464_154, 68_862_592),
    ("cifar_resnet44", 3, 32, 658_586, 97_174_144),
    ("cifar_resnet56", 3, 32, 853_018, 125_485_696),
    ("cifar_resnet110", 3, 32, 1_727_962, 252_887_680),
    ("cifar_vgg16_bn", 3, 32, 14_724_042, 313_196_544 + 5_120),
    ("cifar_mobilenet_v1", 3, 32, 3_217_226, 46_354_432),
    ("cifar_mobilenet_v2", 3, 32, 2_236_682, 87_976_448),
    ("digits_resnet", 1, 8, 272_186, 2_532_992),
]


@pytest.mark.parametrize(("name", "channels", "size", "params", "macs"), GOLDEN)
def test_parameters_and_macs_are_the_known_numbers(name: str, channels: int, size: int, params: int, macs: int) -> None:
    model = build_model(name, 10, in_channels=channels).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        logits = model(torch.zeros(1, channels, size, size))
    assert logits.shape == (1, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert counter.get_total_flops() == 2 * macs


@pytest.mark.parametrize("name", [row[0] for row in GOLDEN])
def test_classes_and_input_channels_are_free(name: str) -> None:
    model = build_model(name, 7, in_channels=2).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 2, 16, 16)).shape == (1, 7)


def test_resnet_keys_are_those_of_the_published_weights() -> None:
    keys = {k for k in build_model("cifar_resnet20", 10).state_dict() if "num_batches_tracked" not in k}
    bn = ("weight", "bias", "running_mean", "running_var")
    expected = {"conv1.weight", "linear.weight", "linear.bias", *(f"bn1.{part}" for part in bn)}
    for stage in (1, 2, 3):
        for block in range(3):
            for number in (1, 2):
                expected.add(f"layer{stage}.{block}.conv{number}.weight")
                expected |= {f"layer{stage}.{block}.bn{number}.{part}" for part in bn}
    assert keys == expected


@pytest.fixture(scope="module")
def digits() -> ArraySource:
    source = load_source("digits")
    assert isinstance(source, ArraySource)
    return source


@pytest.mark.slow
def test_digits_network_learns(digits: ArraySource) -> None:
    torch.manual_seed(0)
    model = build_model("digits_resnet", 10, in_channels=1)
    every = torch.arange(1347)
    images = digits.load("train", every.numpy())
    labels = torch.from_numpy(digits.targets("train"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for batch in torch.cat([torch.randperm(1347) for _ in range(3)]).split(64):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        hits = model(digits.load("test", every[:450].numpy())).argmax(1).numpy() == digits.targets("test")
    assert hits.mean() > 0.8  # three epochs; chance is 0.1


@pytest.mark.shared
@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_published_weights_load(depth: int, shared_weights) -> None:
    build_model(f"cifar_resnet{depth}", 10, weights=shared_weights / f"cifar10-resnet{depth}.safetensors")


@pytest.mark.shared
def test_weights_of_another_depth_are_refused_by_the_first_missing_module(shared_weights) -> None:
    model = build_model("cifar_resnet32", 10)
    with pytest.raises(WeightsError, match=r"module 'layer1\.3\.conv1', 'weight' is missing"):
        load_weights(model, shared_weights / "cifar10-resnet20.safetensors")


@pytest.mark.shared
def test_published_resnet20_reaches_its_accuracy_on_cifar10(shared_data, shared_weights) -> None:
    source = load_source("cifar10", shared_data)
    model = build_model("cifar_resnet20", 10, weights=shared_weights / "cifar10-resnet20.safetensors").eval()
    indices = torch.arange(500).numpy()
    with torch.no_grad():
        predicted = model(source.load("test", indices)).argmax(1).numpy()
    assert 0.91 <= (predicted == source.targets("test")[indices]).mean() <= 0.92
