"""Data sets on disk, with one folder of image files per class."""

import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prune_env.common.errors import DataError, DataWarning
from prune_env.data.rgb import as_rgb
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

    `load` resizes the shorter side to 256 / 224 of ``image_size`` and crops the centre, as the authors of the
    ImageNet networks do in evaluation.

    Attributes:
        name: The data set's name.
        class_names: The class folders, sorted; a label is an index into them.
        image_size: Height and width of the loaded images, in pixels.
        train: The training split.
        test: The test split.
        mean: Subtracted from each channel, in 0..1.
        std: Divides each channel, in 0..1.
        augment: The usual augmentation in training.
    """

    name: str
    class_names: tuple[str, ...]
    image_size: int
    train: LabelledFiles
    test: LabelledFiles
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    augment: str = "resized_crop_flip"

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
            DataError: If a folder is missing or empty, or the two splits have different classes.
        """
        held_out = root / "val" if (root / "val").is_dir() else root / "test"
        class_names, train = _list_files(name, root / "train")
        test_names, test = _list_files(name, held_out)
        if class_names != test_names:
            odd = sorted(set(class_names) ^ set(test_names))[0]
            raise DataError(
                f"data set {name!r}: train and {held_out.name} in {root} differ in their classes, "
                f"for example {odd!r} is in only one of them; give both the same class folders"
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
        from torchvision.transforms import functional

        try:
            with Image.open(file) as opened:
                picture = as_rgb(opened)
        # Pillow raises many kinds of errors on damaged files.
        except Exception as error:
            raise DataError(f"data set {self.name!r}: {file} cannot be read as an image: {error}") from error
        picture = functional.resize(picture, round(self.image_size * 256 / 224))
        tensor: Tensor = functional.to_tensor(functional.center_crop(picture, [self.image_size]))
        return tensor


def _list_files(name: str, folder: Path) -> tuple[tuple[str, ...], LabelledFiles]:
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    if not folder.is_dir():
        raise DataError(f"data set {name!r}: {folder} does not exist; data.path must be {LAYOUT}")
    try:
        found, _ = find_classes(folder)
        class_names = tuple(each for each in found if not _is_hidden(each))
        if hidden := sorted(set(found) - set(class_names)):
            warnings.warn(
                f"data set {name!r}: hidden folders in {folder} are no classes and are left out: {', '.join(hidden)}",
                DataWarning,
                stacklevel=2,
            )
        positions = {each: number for number, each in enumerate(class_names)}
        samples: Iterable[tuple[str, int]] = make_dataset(folder, positions, IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise DataError(f"data set {name!r}: {error} data.path must be {LAYOUT}") from error
    shown = [(file, label) for file, label in samples if not any(map(_is_hidden, Path(file).relative_to(folder).parts))]
    if empty := [each for each, label in positions.items() if all(other != label for _, other in shown)]:
        raise DataError(f"data set {name!r}: the class {empty[0]!r} in {folder} has no image; add images or remove it")
    if not shown:
        raise DataError(f"data set {name!r}: {folder} has no class; data.path must be {LAYOUT}")
    files, labels = zip(*shown, strict=True)
    return class_names, LabelledFiles(files, np.asarray(labels, dtype=np.int64))


def _is_hidden(name: str) -> bool:
    """Whether a file manager or a notebook made the file or folder."""
    return name.startswith(".") or name == "__MACOSX"
