import os
import sys
import types
import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from prune_env.common.errors import ModelError, WeightsError
from prune_env.models import build_model, known_models, register_model
from prune_env.models.registry import MODELS

SQUEEZENET_FILE = Path(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url).name


class Marker:
    """Unpickled, it makes a folder: proof that a file's code was run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_nets_for_test.py").write_text(
        "from torch import nn\n"
        "number = 3\n"
        "def small(width=4): return nn.Sequential(nn.Conv2d(3, width, 3))\n"
        "def wrong(): return 'a string'\n"
        "def broken(): raise RuntimeError('boom')\n"
    )
    (tmp_path / "my_failing_import.py").write_text("raise OSError('no such driver')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "my_nets_for_test"


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "mobilenet_v3_small"])
def test_torchvision_network_by_name_has_one_output_of_our_classes(name: str) -> None:
    model = build_model(name, 5)
    assert model.training
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_inception_is_built_without_auxiliary_head() -> None:
    assert build_model("inception_v3", 5).AuxLogits is None


def test_own_and_torchvision_names_are_known() -> None:
    assert {"cifar_resnet56", "digits_resnet", "resnet50", "convnext_tiny"} <= set(known_models())
    assert "fasterrcnn_resnet50_fpn" not in known_models()


def test_registered_network_comes_before_torchvision() -> None:
    with MODELS.restored():
        register_model("resnet18")(lambda classes, in_channels: nn.Linear(in_channels, classes))
        assert isinstance(build_model("resnet18", 5), nn.Linear)
        with pytest.raises(ValueError, match="registered already"):
            register_model("resnet18")(nn.Identity)
    assert not isinstance(build_model("resnet18", 5), nn.Linear)


def test_users_callable_gets_its_arguments_only(user_module: str) -> None:
    model = build_model(f"{user_module}:small", 99, in_channels=9, arguments={"width": 6})
    assert model[0].out_channels == 6
    assert model[0].in_channels == 3


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "cifar_resnet65",
            {},
            r"^model\.name: there is no model 'cifar_resnet65'; did you mean 'cifar_resnet56'\?",
        ),
        ("digits_resnet", {"classes": 99999999999999}, r"does not take these model\.arguments: .*memory"),
        ("cifar_resnet20", {"depth": 3}, r"does not take these model\.arguments: .*'depth'"),
        ("resnet18", {"widht": 3}, r"'resnet18' does not take these model\.arguments: .*'widht'"),
        ("no_such_module:build", {}, r"module 'no_such_module' cannot be imported \(ModuleNotFoundError"),
        ("my_failing_import:build", {}, r"cannot be imported \(OSError: no such driver\)"),
        ("my_nets_for_test:other", {}, r"'other' does not exist in module"),
        ("my_nets_for_test:number", {}, r"'number' is of type int and is not callable"),
        ("my_nets_for_test:wrong", {}, r":wrong' returned str; the callable must return a torch\.nn\.Module"),
        ("my_nets_for_test:broken", {}, r"raised RuntimeError: boom"),
        ("my_nets_for_test:small", {"depth": 3}, r"raised TypeError: .*'depth'"),
        ("my_nets_for_test:", {}, r"write it as package\.module:callable"),
    ],
)
@pytest.mark.usefixtures("user_module")
def test_network_that_cannot_be_built_is_refused_in_words(name: str, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_model(name, 10, arguments=arguments)


def test_torchvision_network_for_other_than_three_channels_is_refused() -> None:
    with pytest.raises(ModelError, match="read 3 input channels, the data set has 1"):
        build_model("resnet18", 10, in_channels=1)


def test_pretrained_weights_of_our_own_networks_do_not_exist() -> None:
    with pytest.raises(ModelError, match="has no pretrained weights of its own"):
        build_model("cifar_resnet20", 10, weights="pretrained")


def test_pretrained_keeps_the_librarys_own_head(hub_folder: Path) -> None:
    dense = torchvision.models.squeezenet1_1()
    torch.save(dense.state_dict(), hub_folder / SQUEEZENET_FILE)
    model = build_model("squeezenet1_1", 10, weights="pretrained")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), dense.parameters(), strict=True))


def test_pretrained_file_is_never_unpickled(hub_folder: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": Marker(tmp_path / "executed")}, hub_folder / SQUEEZENET_FILE)
    with pytest.raises(WeightsError, match="'squeezenet1_1' could not be loaded"):
        build_model("squeezenet1_1", 10, weights="pretrained")
    assert not (tmp_path / "executed").exists()


@pytest.mark.usefixtures("hub_folder")
def test_pretrained_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(WeightsError, match=r"no network.*give a file with model\.weights=PATH"):
        build_model("squeezenet1_1", 10, weights="pretrained")


def test_timm_network_without_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"pip install prune-env\[timm\]"):
        build_model("timm/resnet18", 10)


@pytest.fixture
def timm_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """A stand-in for timm that records how it is called; its calls are those of timm 1.0."""
    calls: list[dict[str, object]] = []

    def create_model(name: str, **settings: object) -> nn.Module:
        calls.append({"name": name, **settings})
        return nn.Identity()

    names = ["resnet18", "resnet50"]
    module = types.SimpleNamespace(create_model=create_model, is_model=names.__contains__, list_models=names.copy)
    monkeypatch.setitem(sys.modules, "timm", module)
    return calls


def test_timm_network_gets_classes_and_channels(timm_calls: list[dict[str, object]]) -> None:
    build_model("timm/resnet18", 10, in_channels=1)
    assert timm_calls == [{"name": "resnet18", "pretrained": False, "num_classes": 10, "in_chans": 1}]


def test_pretrained_timm_network_keeps_its_head(timm_calls: list[dict[str, object]]) -> None:
    build_model("timm/resnet18", 10, weights="pretrained")
    assert timm_calls == [{"name": "resnet18", "pretrained": True, "in_chans": 3}]


@pytest.mark.usefixtures("timm_calls")
def test_unknown_timm_network_offers_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"timm has no model 'resnet81'; did you mean 'resnet18'\?"):
        build_model("timm/resnet81", 10)
