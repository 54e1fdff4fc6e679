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


def test_hidden_files_and_folders_are_left_out_and_told(tree: Path) -> None:
    for hidden in (".ipynb_checkpoints", "__MACOSX", "red/.thumbnails"):
        (tree / "train" / hidden).mkdir()
        Image.new("RGB", (8, 8)).save(tree / "train" / hidden / "0.png")
    (tree / "train" / "red" / "._0.png").write_bytes(b"what a Mac leaves beside 0.png")
    with pytest.warns(DataWarning, match=r"are no classes and are left out: \.ipynb_checkpoints, __MACOSX"):
        source = load_source("imagefolder", tree, image_size=28)
    assert source.classes == 2
    assert source.targets("train").tolist() == [0, 0, 0, 1, 1, 1]
    assert len(source.load("train", np.arange(6))) == 6


def test_a_class_of_hidden_files_alone_is_refused(tree: Path) -> None:
    for file in (tree / "train" / "red").iterdir():
        file.rename(file.with_name(f".{file.name}"))
    with pytest.raises(DataError, match=r"the class 'red' in .*train has no image"):
        load_source("imagefolder", tree)


def test_16_bits_are_scaled_to_8(tree: Path) -> None:
    ramp = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    Image.fromarray(ramp).save(tree / "train" / "red" / "0.png")
    source = load_source("imagefolder", tree, image_size=28)
    image = source.load("train", np.array([3]))[0, 0] * STD[0] + MEAN[0]
    assert 0.0 <= image.min() < 0.1
    assert 0.9 < image.max() <= 1.0
    assert image.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_of_32_bits_are_refused(tree: Path, kind: type) -> None:
    (tree / "train" / "red" / "0.png").unlink()
    Image.fromarray(np.ones((32, 32), dtype=kind)).save(tree / "train" / "red" / "0.tiff")
    with pytest.raises(DataError, match=r"0\.tiff cannot be read as an image: it holds 32-bit numbers.*8 or 16 bits"):
        load_source("imagefolder", tree, image_size=28).load("train", np.array([3]))


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


def test_splits_with_other_classes_are_refused(tree: Path) -> None:
    (tree / "train" / "green").mkdir()
    (tree / "train" / "red" / "0.png").rename(tree / "train" / "green" / "0.png")
    with pytest.raises(DataError, match="differ in their classes, for example 'green'"):
        load_source("imagefolder", tree)
