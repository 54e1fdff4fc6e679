import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prune_env.common.errors import DataError, DataWarning
from prune_env.data import ImageSource, load_source

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


def write_images(root: Path, split: str, count: int) -> None:
    """Plain images, wider than high, with a white border that the centre crop must cut off."""
    for name, colour in COLOURS.items():
        (root / split / name).mkdir(parents=True)
        for number in range(count):
            picture = Image.new("RGB", (60, 40), (255, 255, 255))
            picture.paste(colour, (9, 1, 51, 39))
            picture.save(root / split / name / f"{number}.png")


@pytest.fixture(params=["val", "test"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write_images(tmp_path, "train", 3)
    write_images(tmp_path, request.param, 2)
    return tmp_path


@pytest.mark.parametrize("name", ["imagefolder", "imagenet"])
def test_folder_gives_labels_and_normalised_crops(tree: Path, name: str) -> None:
    source: ImageSource = load_source(name, tree, image_size=28)
    assert (source.name, source.classes, source.channels, source.size) == (name, 2, 3, (28, 28))
    assert source.targets("train").tolist() == [0, 0, 0, 1, 1, 1]
    assert source.targets("test").tolist() == [0, 0, 1, 1]
    images = source.load("train", np.array([5, 0]))
    assert images.shape == (2, 3, 28, 28)
    for image, colour in zip(images, (COLOURS["red"], COLOURS["blue"]), strict=True):
        expected = [(value / 255 - mean) / std for value, mean, std in zip(colour, MEAN, STD, strict=True)]
        torch.testing.assert_close(image.amax((1, 2)), torch.tensor(expected))
        torch.testing.assert_close(image.amin((1, 2)), torch.tensor(expected))


def test_images_are_224_pixels_unless_told(tree: Path) -> None:
    assert load_source("imagefolder", tree).load("test", np.array([0])).shape == (1, 3, 224, 224)


def test_only_the_images_asked_for_are_read(tree: Path) -> None:
    (tree / "train" / "red" / "2.png").write_bytes(b"not an image")
    source = load_source("imagefolder", tree, image_size=28)
    assert len(source.load("train", np.array([0, 4]))) == 2
    with pytest.raises(DataError, match=r"red/2\.png cannot be read as an image"):
        source.load("train", np.array([0, 5]))


def test_val_is_the_test_split_where_there_are_both(tmp_path: Path) -> None:
    write_images(tmp_path, "train", 1)
    write_images(tmp_path, "val", 2)
    (tmp_path / "test").mkdir()
    assert len(load_source("imagefolder", tmp_path).targets("test")) == 4


def test_missing_or_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train does not exist; data\.path must be a folder with train/CLASS"):
        load_source("imagefolder", tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"Couldn't find any class folder"):
        load_source("imagefolder", tmp_path)
    (tmp_path / "train" / "red").mkdir()
    with pytest.raises(DataError, match=r"Found no valid file for the classes red"):
        load_source("imagefolder", tmp_path)


def test_a_test_class_without_training_images_is_refused(tree: Path) -> None:
    held_out = next(folder for folder in tree.iterdir() if folder.name != "train")
    (held_out / "green").mkdir()
    (held_out / "red" / "0.png").rename(held_out / "green" / "0.png")
    with pytest.raises(DataError, match=f"{held_out.name} has the class 'green', which train has not"):
        load_source("imagefolder", tree)


def test_a_test_split_of_fewer_classes_keeps_their_labels_and_says_so(tree: Path) -> None:
    held_out = next(folder for folder in tree.iterdir() if folder.name != "train")
    shutil.rmtree(held_out / "blue")
    with pytest.warns(DataWarning, match="holds images of 1 of the 2 classes of train"):
        source = load_source("imagefolder", tree)
    assert source.classes == 2
    assert set(source.targets("test").tolist()) == {1}


def test_hidden_folders_and_files_are_no_classes_and_no_images(tree: Path) -> None:
    for hidden in (".ipynb_checkpoints", "__MACOSX", "red/.thumbnails"):
        (tree / "train" / hidden).mkdir()
        Image.new("RGB", (4, 4)).save(tree / "train" / hidden / "0-checkpoint.png")
    (tree / "train" / "red" / "._0.png").write_bytes(b"left by a copy")
    source = load_source("imagefolder", tree, image_size=28)
    assert source.classes == 2
    assert source.targets("train").tolist() == [0, 0, 0, 1, 1, 1]
