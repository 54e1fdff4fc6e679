"""Data sets on disk, with one folder of image files per class."""

import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prune_env.common.errors import DataError, DataWarning
from prune_env.data.image_file import opened_image, rgb_of
from prune_env.data.preprocessing import Interpolation, Preprocessing
from prune_env.data.source import Indices, Split

# The normalisation with which torchvision's and timm's ImageNet networks were trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LAYOUT = "a folder with train/CLASS/* and val/CLASS/* or test/CLASS/*"


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """The image files of one split and their labels, int64 [N]."""

    files: tuple[str, ...] = field(repr=False)
    labels: Indices = field(repr=False)


@dataclass(frozen=True, eq=False)
class FolderSource:
    """An `ImageSource` on disk: `load` reads only the requested images.

    `load` resizes the shorter side to ``resize`` pixels and crops the centre, as the authors of the ImageNet networks
    do in evaluation.

    Attributes:
        name: The data set's name.
        class_names: The class folders, sorted; a label is an index into them.
        image_size: Height and width of the loaded images, in pixels.
        train: The training split.
        test: The test split.
        mean: Subtracted from each channel, in 0..1.
        std: Divides each channel, in 0..1.
        augment: The usual augmentation in training.
        resize: Length of the shorter side before the crop, in pixels; None for 256 / 224 of ``image_size``.
        interpolation: How pixels are computed when an image is resized.
    """

    name: str
    class_names: tuple[str, ...]
    image_size: int
    train: LabelledFiles
    test: LabelledFiles
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    augment: str = "resized_crop_flip"
    resize: int | None = None
    interpolation: Interpolation = "bilinear"

    @classmethod
    def from_folder(cls, name: str, root: Path, image_size: int = 224) -> "FolderSource":
        """List the files of torchvision's ImageFolder layout.

        Args:
            name: The data set's name.
            root: The folder with ``train`` and, as the test split, ``val`` (or ``test`` where there is no ``val``).
            image_size: Height and width of the loaded images, in pixels.

        Returns:
            The source; no image is read yet.

        Raises:
            DataError: If a folder is missing or empty, or the test split has a class that ``train`` has not.

        Warns:
            DataWarning: If the test split lacks classes; a label is a class's position in ``train`` all the same.
        """
        held_out = root / "val" if (root / "val").is_dir() else root / "test"
        class_names, train = _list_files(name, root / "train")
        test = _list_files(name, held_out, class_names)[1]
        if (shown := len(np.unique(test.labels))) < len(class_names):
            warnings.warn(
                f"data set {name!r}: {held_out} holds images of {shown} of the {len(class_names)} classes of train; "
                "the test set measures those alone.",
                DataWarning,
                stacklevel=2,
            )
        return cls(name, class_names, image_size, train, test)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Three: every image is read as RGB."""
        return 3

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of each loaded image, in pixels."""
        return self.image_size, self.image_size

    def adjusted(self, wanted: Preprocessing) -> "FolderSource":
        """The same files with another preprocessing; None leaves a value as it is.

        Raises:
            DataError: If images would be resized to less than the crop.
        """
        source = replace(self, **wanted.given)
        if source._shorter < source.image_size:
            raise DataError(
                f"data.resize: {source.resize} given, but the crop (data.image_size) has {source.image_size} pixels. "
                f"Give {source.image_size} or more."
            )
        return source

    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the loaded images."""
        return Preprocessing(self.image_size, self._shorter, self.interpolation, self.mean, self.std)

    @property
    def _shorter(self) -> int:
        return self.resize or round(self.image_size * 256 / 224)

    def targets(self, split: Split) -> Indices:
        """The class of every image of a split, int64 [N]."""
        return self._files(split).labels

    def load(self, split: Split, indices: Indices) -> Tensor:
        """Read the images at ``indices`` of a split, normalised, float32 [n, 3, image_size, image_size].

        Raises:
            DataError: If a file cannot be read as an image; the message names the file.
        """
        files = self._files(split).files
        images = torch.empty(len(indices), 3, self.image_size, self.image_size)
        # Decoding releases the interpreter lock, so threads run in parallel.
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for place, image in enumerate(pool.map(self._read, (files[index] for index in indices))):
                images[place] = image
        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        return images.sub_(mean).div_(std)

    def _files(self, split: Split) -> LabelledFiles:
        return self.train if split == "train" else self.test

    def _read(self, file: str) -> Tensor:
        side = self.image_size
        with opened_image(file, self.name) as opened:
            picture = rgb_of(opened, (self._shorter, self._shorter))
            box = central_square(picture.size, side, self._shorter)
            shown = np.array(picture.resize((side, side), Image.Resampling[self.interpolation.upper()], box=box))
            del picture  # before another large image is read
        return torch.from_numpy(shown).permute(2, 0, 1).float().div_(255.0)


def central_square(size: tuple[int, int], side: int, shorter: int) -> tuple[float, float, float, float]:
    """The square of an image that `FolderSource.load` shows, as left, top, right and bottom in pixels.

    It is what stays where the shorter side is resized to ``shorter`` and the centre is cropped; found before anything
    is resized, because an image of 2 x 30,000 pixels would become one of 256 x 3,840,000.

    Args:
        size: Width and height of the image.
        side: Height and width of the loaded image.
        shorter: The image's shorter side after the resizing, in pixels, ``side`` or more.

    Example:
        >>> central_square((512, 768), 224, 256)
        (32.0, 160.0, 480.0, 608.0)
    """
    longer = int(shorter * max(size) / min(size))
    resized = (shorter, longer) if size[0] <= size[1] else (longer, shorter)
    scales = [whole / small for whole, small in zip(size, resized, strict=True)]
    left, top = (round((small - side) / 2) * scale for small, scale in zip(resized, scales, strict=True))
    return left, top, left + side * scales[0], top + side * scales[1]


def _list_files(name: str, folder: Path, known: tuple[str, ...] | None = None) -> tuple[tuple[str, ...], LabelledFiles]:
    """The classes of a folder and its files, labelled by the position of their class among the ``known`` ones."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    def is_image(path: str) -> bool:
        return not any(map(_hidden, Path(path).relative_to(folder).parts)) and path.lower().endswith(IMG_EXTENSIONS)

    if not folder.is_dir():
        raise DataError(f"data set {name!r}: {folder} does not exist; data.path must be {LAYOUT}")
    try:
        class_names = [found for found in find_classes(folder)[0] if not _hidden(found)]
        if not class_names:
            raise FileNotFoundError(f"{folder} holds no class folder.")
        positions = {found: number for number, found in enumerate(known or class_names)}
        if strange := sorted(set(class_names) - positions.keys()):
            raise DataError(
                f"data set {name!r}: {folder} has the class {strange[0]!r}, which train has not. Give train a folder "
                "of that name, or remove it here."
            )
        found_classes = {found: positions[found] for found in class_names}
        samples: Iterable[tuple[str, int]] = make_dataset(folder, found_classes, is_valid_file=is_image)
    except FileNotFoundError as error:
        raise DataError(f"data set {name!r}: {error} data.path must be {LAYOUT}") from error
    files, labels = zip(*samples, strict=True)
    return tuple(class_names), LabelledFiles(files, np.asarray(labels, dtype=np.int64))


def _hidden(name: str) -> bool:
    """Whether a file or folder was left by a system or a program: .ipynb_checkpoints, ._1.png, __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"
