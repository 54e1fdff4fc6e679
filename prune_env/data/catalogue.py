"""The data sets that the library provides by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from prune_env.common.errors import DataError
from prune_env.data import folder, npz
from prune_env.data.arrays import ArraySource, LabelledArrays
from prune_env.data.folder import FolderSource
from prune_env.data.registry import existing_path, not_found, register_source, sides_of
from prune_env.data.source import ImageSize

TEST_DIGITS = 450

MOST_CLASSES = 100_000
"""Most classes of a file whose labels alone say how many there are: a network has an output for each [our choice]."""


@register_source("digits")
def load_digits(_path: Path | None = None, _image_size: int | None = None) -> ArraySource:
    """scikit-learn's digits, part of its package: 1,347 training and 450 test images of 8x8, one channel."""
    return digits_arrays()


def digits_arrays() -> ArraySource:
    """scikit-learn's digits, as `load_digits`."""
    from sklearn import datasets, model_selection

    digits = datasets.load_digits()
    # A fixed seed: the split belongs to the data set, not to a run.
    train, test = model_selection.train_test_split(
        np.arange(len(digits.target)), test_size=TEST_DIGITS, stratify=digits.target, random_state=0
    )
    images = digits.images.astype(np.uint8)
    return ArraySource(
        "digits",
        10,
        LabelledArrays.from_arrays(images[train], digits.target[train], "digits, train"),
        LabelledArrays.from_arrays(images[test], digits.target[test], "digits, test"),
        mean=(0.3053,),
        std=(0.3760,),
        maximum=16.0,
    )


@register_source("cifar10")
def load_cifar10(path: Path | None = None, _image_size: int | None = None) -> ArraySource:
    """CIFAR-10, normalised with ImageNet's mean and std, as in the training of the published CIFAR ResNets."""
    layouts = f"{npz.LAYOUT}; a folder with cifar10.npz; or a torchvision root with cifar-10-batches-py"
    root = existing_path("cifar10", path, layouts)
    train, test = _npz_or_torchvision("cifar10", root, "CIFAR10", "cifar-10-batches-py", layouts)
    return ArraySource("cifar10", 10, train, test, folder.IMAGENET_MEAN, folder.IMAGENET_STD, augment="crop_flip")


@register_source("cifar100")
def load_cifar100(path: Path | None = None, _image_size: int | None = None) -> ArraySource:
    """CIFAR-100 with its own mean and std."""
    layouts = f"{npz.LAYOUT}; a folder with cifar100.npz; or a torchvision root with cifar-100-python"
    root = existing_path("cifar100", path, layouts)
    train, test = _npz_or_torchvision("cifar100", root, "CIFAR100", "cifar-100-python", layouts)
    return ArraySource(
        "cifar100", 100, train, test, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), augment="crop_flip"
    )


@register_source("fashionmnist")
def load_fashionmnist(path: Path | None = None, _image_size: int | None = None) -> ArraySource:
    """FashionMNIST with its own mean and std: 28x28, one channel."""
    layouts = f"{npz.LAYOUT}; a folder with fashionmnist.npz; or a torchvision root with FashionMNIST/raw"
    root = existing_path("fashionmnist", path, layouts)
    train, test = _npz_or_torchvision("fashionmnist", root, "FashionMNIST", "FashionMNIST/raw", layouts)
    return ArraySource("fashionmnist", 10, train, test, (0.2860,), (0.3530,), augment="crop_flip")


@register_source("npz")
def load_npz(path: Path | None = None, _image_size: int | None = None) -> ArraySource:
    """Any file in MedMNIST's layout, normalised with mean and std 0.5 as MedMNIST's own networks are."""
    file = existing_path("npz", path, npz.LAYOUT)
    if not file.is_file():
        raise not_found("npz", file, npz.LAYOUT)
    train, test = npz.read_npz(file)
    channels = train.images.shape[3]
    if (highest := int(train.labels.max())) >= MOST_CLASSES:
        raise DataError(
            f"{file}: labels run up to {highest}; allowed are 0 to {MOST_CLASSES - 1}. Number the classes from 0."
        )
    return ArraySource("npz", highest + 1, train, test, (0.5,) * channels, (0.5,) * channels)


@register_source("imagefolder")
def load_imagefolder(path: Path | None = None, image_size: ImageSize | None = None) -> FolderSource:
    """Any tree in torchvision's ImageFolder layout."""
    return _folder("imagefolder", path, image_size)


@register_source("imagenet")
def load_imagenet(path: Path | None = None, image_size: ImageSize | None = None) -> FolderSource:
    """ImageNet in torchvision's ImageFolder layout."""
    return _folder("imagenet", path, image_size)


def _folder(name: str, path: Path | None, image_size: ImageSize | None) -> FolderSource:
    """The images of a folder, cropped to squares."""
    height, width = sides_of(image_size or 224)
    if height != width:
        raise DataError(
            f"data.image_size: [{height}, {width}] given, but {name!r} crops its images to squares; give one number"
        )
    return FolderSource.from_folder(name, existing_path(name, path, folder.LAYOUT), height)


def _npz_or_torchvision(
    name: str, path: Path, dataset: str, marker: str, layouts: str
) -> tuple[LabelledArrays, LabelledArrays]:
    """Read an .npz file, or else the torchvision data set whose files are in ``path / marker``."""
    file = path if path.is_file() else path / f"{name}.npz"
    if file.is_file():
        return npz.read_npz(file)
    if not (path / marker).is_dir():
        raise not_found(name, path, layouts)
    from torchvision import datasets

    # torchvision's CIFAR classes compare the files with their published MD5 before they unpickle anything.
    return (
        _read_torchvision(getattr(datasets, dataset), path, True, f"{name} in {path}"),
        _read_torchvision(getattr(datasets, dataset), path, False, f"{name} in {path}"),
    )


def _read_torchvision(dataset: Callable[..., Any], root: Path, train: bool, what: str) -> LabelledArrays:
    try:
        read = dataset(root=str(root), train=train, download=False)
    except Exception as error:
        raise DataError(f"{what} is damaged or incomplete ({error}); download it again") from error
    return LabelledArrays.from_arrays(np.asarray(read.data), np.asarray(read.targets), what)
