"""Detection: boxes, labels and scores of the objects in an image, by torchvision's interface of detectors."""

from prune_env.tasks.detection.average_precision import AveragePrecision
from prune_env.tasks.detection.task import Detection

__all__ = ["AveragePrecision", "Detection"]
