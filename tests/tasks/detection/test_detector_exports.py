"""torchvision's one-stage detectors as files: the part before NMS computes the same outside of this library."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from detectors import boxed_batch, small_torchvision
from torch import Tensor, nn

from prune_env import LayerWalk
from prune_env.models.centre_detector import CentreDetector
from prune_env.runs.export_formats import EXPORTERS, Run, difference
from prune_env.runs.exporting import _written
from prune_env.tasks import Detection, core_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "to"), [("ssd", "onnx"), ("ssd", "torch-export"), ("retinanet", "torch-export"), ("fcos", "torch-export")]
)
def test_a_detector_of_torchvision_is_exported_before_nms(kind: str, to: str, tmp_path: Path) -> None:
    model, images = small_torchvision(kind), boxed_batch(3).images
    core = core_of(Detection(), model, images)
    assert core is not None
    file, export = EXPORTERS[to]
    exported = export(core.module, images, tmp_path / file, core.outputs)
    assert difference(core.module, exported, images) <= 1e-4
    assert difference(model, lambda given: core.decode(core.module(given)), images) <= 1e-4


def test_scores_that_rounding_exchanges_are_no_reason_to_refuse_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = CentreDetector(10, 1).eval()
    nn.init.zeros_(model.head.weight)  # all cells score alike
    nn.init.constant_(model.head.bias, -1.0)
    images = torch.rand(4, 1, 96, 96)
    core = core_of(Detection(), model, images)
    assert core is not None
    part = core.module

    def rounding(_model: nn.Module, _images: Tensor, path: Path, _outputs: Sequence[str]) -> Run:
        path.touch()
        return lambda given: [values * (1 + 1e-6 * torch.rand_like(values)) for values in part(given)]

    monkeypatch.setattr("prune_env.runs.exporting.EXPORTERS", {"onnx": ("model.onnx", rounding)})
    record = _written("onnx", model, LayerWalk.trace(model, images[:1]).plan({}), model, images, tmp_path, core)
    assert 0.0 < record["difference"] <= 1e-4
    assert record["decoded_difference"] <= 1e-4
    assert record["files"] == ["decoder.json", "decoder.py", "model.onnx", "plan.json"]
