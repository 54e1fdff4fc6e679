"""Data sets by name, and the disjoint reward, calibration, training and test sets.

Importing this package registers the data sets that come with the library.
"""

from prune_env.data import catalogue
from prune_env.data.arrays import ArraySource, LabelledArrays
from prune_env.data.folder import FolderSource
from prune_env.data.image_set import Batch, ImageSet, Targets, moved, tensors_of
from prune_env.data.registry import load_source, register_source
from prune_env.data.source import ImageSource, Indices, Split, SplitTargets
from prune_env.data.splits import Splits, load_images, make_splits

__all__ = [
    "ArraySource",
    "Batch",
    "FolderSource",
    "ImageSet",
    "ImageSource",
    "Indices",
    "LabelledArrays",
    "Split",
    "SplitTargets",
    "Splits",
    "Targets",
    "catalogue",
    "load_images",
    "load_source",
    "make_splits",
    "moved",
    "register_source",
    "tensors_of",
]
