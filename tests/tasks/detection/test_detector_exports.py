"""torchvision's one-stage detectors as files: the part before NMS computes the same outside of this library."""

from pathlib import Path

import pytest
from detectors import boxed_batch, small_torchvision

from prune_env.runs.export_formats import EXPORTERS, difference
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
    assert difference(model, lambda given: core.decode(exported(given)), images) <= 1e-4
