"""Data sets by name, and the disjoint reward, calibration, training and test sets.

Importing this package registers the data sets that come with the library.
"""

from prune_env.data import catalogue, coco, scattered_digits, voc
from prune_env.data.arrays import ArraySource, LabelledArrays
from prune_env.data.box_source import BoxedImages, BoxSource, ImageFile
from prune_env.data.boxes import BoxTarget, LeftOut, box_target, check_box_targets
from prune_env.data.folder import FolderSource
from prune_env.data.given import GivenSource, given_source
from prune_env.data.given_items import Given
from prune_env.data.image_set import Batch, ImageSet, Targets, moved, tensors_of
from prune_env.data.preprocessing import (
    Adjustable,
    Interpolation,
    Preprocessing,
    adjust,
    describe_images,
    images_in_words,
)
from prune_env.data.registry import SOURCES, load_source, register_source
from prune_env.data.source import ImageSize, ImageSource, Indices, Split, SplitTargets, Streaming
from prune_env.data.splits import Splits, load_images, load_targets, make_splits

__all__ = [
    "SOURCES",
    "Adjustable",
    "ArraySource",
    "Batch",
    "BoxSource",
    "BoxTarget",
    "BoxedImages",
    "FolderSource",
    "Given",
    "GivenSource",
    "ImageFile",
    "ImageSet",
    "ImageSize",
    "ImageSource",
    "Indices",
    "Interpolation",
    "LabelledArrays",
    "LeftOut",
    "Preprocessing",
    "Split",
    "SplitTargets",
    "Splits",
    "Streaming",
    "Targets",
    "adjust",
    "box_target",
    "catalogue",
    "check_box_targets",
    "coco",
    "describe_images",
    "given_source",
    "images_in_words",
    "load_images",
    "load_source",
    "load_targets",
    "make_splits",
    "moved",
    "register_source",
    "scattered_digits",
    "tensors_of",
    "voc",
]
