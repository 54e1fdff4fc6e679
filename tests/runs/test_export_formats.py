"""ONNX and torch.export: the exported file computes the network's outputs at any batch size, or is refused."""

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import image_set, toy_walk
from zoo import Net, small_images

from prune_env import LayerWalk
from prune_env.common.errors import ExportError
from prune_env.models.cifar_resnet import CifarResNet
from prune_env.runs.export_formats import EXPORTERS, difference, export_onnx, export_program

pytestmark = pytest.mark.slow

IMAGES = image_set(5).images
every_form = pytest.mark.parametrize("form", EXPORTERS)


def pruned() -> nn.Module:
    walk = toy_walk()
    return walk.plan({unit.name: unit.channels // 2 for unit in walk.free}).apply(walk.model).eval()


@every_form
def test_what_is_written_gives_what_the_network_gives(form: str, tmp_path: Path) -> None:
    name, exporter = EXPORTERS[form]
    model = pruned()
    exported = exporter(model, IMAGES, tmp_path / name)
    assert (tmp_path / name).is_file()
    assert difference(model, exported, IMAGES) < 1e-5
    many = image_set(17, seed=1).images
    with torch.no_grad():
        torch.testing.assert_close(exported(many), model(many), rtol=1e-4, atol=1e-5)


@every_form
def test_all_outputs_of_a_network_are_written_and_compared(form: str, tmp_path: Path) -> None:
    def heads(net: Net, images: Tensor) -> tuple[Tensor, Tensor, None]:
        return net.fc(images.mean((2, 3))), net.second(images.mean((2, 3))), None

    name, exporter = EXPORTERS[form]
    model = Net(heads, fc=nn.Linear(2, 4), second=nn.Linear(2, 4)).eval()
    exported = exporter(model, IMAGES, tmp_path / name)
    assert difference(model, exported, IMAGES) < 1e-5
    with torch.no_grad():
        model.second.weight.add_(1.0)
    with pytest.raises(ExportError, match="differ from the network's"):
        difference(model, exported, IMAGES)


@every_form
def test_a_cifar_resnet_whose_shortcuts_pad_with_zeros_can_be_written(form: str, tmp_path: Path) -> None:
    name, exporter = EXPORTERS[form]
    images = torch.randn(3, 3, 32, 32)
    walk = LayerWalk.trace(CifarResNet(8, 10).eval(), images[:1])
    model = walk.plan({unit.name: max(1, unit.channels // 2) for unit in walk.free}).apply(walk.model).eval()
    assert difference(model, exporter(model, images, tmp_path / name), images) < 1e-4


def test_plain_torch_runs_what_torch_export_has_written(tmp_path: Path) -> None:
    model = pruned()
    export_program(model, IMAGES, tmp_path / "model.pt2")
    torch.save({"images": IMAGES, "scores": model(IMAGES).detach()}, tmp_path / "wanted.pt")
    script = (
        "import sys, torch\n"
        "model = torch.export.load('model.pt2').module()\n"
        "wanted = torch.load('wanted.pt')\n"
        "torch.testing.assert_close(model(wanted['images']), wanted['scores'], rtol=1e-4, atol=1e-5)\n"
        "assert not [name for name in sys.modules if name.startswith(('prune_env', 'torch_pruning'))]\n"
    )
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True)


class Wrong(nn.Module):
    def __init__(self, off: float) -> None:
        super().__init__()
        self.off = off

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) * (1.0 + self.off)


def test_an_export_that_gives_something_else_is_refused() -> None:
    assert difference(Wrong(0.0), Wrong(5e-5), IMAGES) == pytest.approx(5e-5, rel=0.1)
    for off in (1e-3, float("nan")):
        with pytest.raises(ExportError, match=r"differ from the network's by .* largest output; at most 0\.0001"):
            difference(Wrong(0.0), Wrong(off), IMAGES)


def test_an_export_of_one_batch_size_is_refused() -> None:
    def fixed(images: Tensor) -> Tensor:
        return Wrong(0.0)(torch.cat([images, images])[: len(IMAGES)])[: len(images)] * (1.0 + (len(images) != 5))

    with pytest.raises(ExportError):
        difference(Wrong(0.0), fixed, IMAGES)


def test_without_its_packages_onnx_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def without(name: str, *given: Any, **named: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return really(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExportError, match=r"needs onnxruntime, .*pip install 'prune-env\[onnx\]'"):
        export_onnx(pruned(), IMAGES, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


class Unheard(nn.Module):
    """Has an operator that ONNX does not know."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.special.bessel_j0(images).flatten(1)


def test_an_operator_that_onnx_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="bessel_j0"):
        export_onnx(Unheard().eval(), IMAGES, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_number_type_that_onnx_runtime_has_no_kernel_for_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"ONNX Runtime cannot run the network: .*Conv"):
        export_onnx(nn.Sequential(nn.Conv2d(2, 1, 3), nn.Flatten()).double(), IMAGES.double(), tmp_path / "model.onnx")


def test_no_image_is_shipped_with_the_network(tmp_path: Path) -> None:
    few, many = tmp_path / "few.pt2", tmp_path / "many.pt2"
    export_program(pruned(), IMAGES, few)
    export_program(pruned(), image_set(500).images, many)
    assert many.stat().st_size < 1.01 * few.stat().st_size


class Branching(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) if float(images.sum()) > 0 else -images.flatten(1)


def test_a_network_that_torch_cannot_export_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^torch\.export refuses the network: [^\n]+$"):
        export_program(Branching().eval(), small_images(3), tmp_path / "model.pt2")
