"""The preprocessing of images: what the user gives, what pretrained weights name, and what a data set takes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy import digits_config

from prune_env import RunConfig
from prune_env.common.errors import DataError
from prune_env.data import FolderSource, Preprocessing, adjust, images_in_words, load_source
from prune_env.env.loading import load_splits, with_preprocessing
from prune_env.models import own_preprocessing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images with a gradient from left to right, two classes."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number in range(3):
                grey = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (64, 1))
                Image.fromarray(grey).save(root / split / name / f"{number}.png")
    return root


def settings(folder: Path, *overrides: str, name: str = "mobilenet_v2") -> RunConfig:
    return RunConfig.from_mapping(
        {
            "model": {"name": name, "weights": "pretrained"},
            "data": {"name": "imagefolder", "path": str(folder), "reward_images": 2, "calibration_images": 2},
        },
        overrides,
    )


def source_of(config: RunConfig) -> FolderSource:
    source = load_splits(config).source
    assert isinstance(source, FolderSource)
    return source


def test_the_transforms_of_pretrained_weights_are_those_of_their_library(folder: Path) -> None:
    import torchvision

    transforms = torchvision.models.MobileNet_V2_Weights.DEFAULT.transforms()
    source = source_of(settings(folder))
    assert source.resize == transforms.resize_size[0] != round(source.image_size * 256 / 224)
    with Image.open(source.test.files[0]) as picture:
        theirs = transforms(picture.convert("RGB"))
    torch.testing.assert_close(source.load("test", np.array([0]))[0], theirs)


def test_timm_s_weights_name_their_crop_scale_and_interpolation(folder: Path) -> None:
    timm = pytest.importorskip("timm")
    config = timm.data.resolve_data_config(
        pretrained_cfg=timm.models.get_pretrained_cfg("mobilenetv3_rw.rmsp_in1k").to_dict()
    )
    transform = timm.data.create_transform(**config, is_training=False)
    source = source_of(settings(folder, name="timm/mobilenetv3_rw.rmsp_in1k"))
    assert source.interpolation == config["interpolation"] == "bicubic"
    with Image.open(source.test.files[0]) as picture:
        theirs = transform(picture.convert("RGB"))
    torch.testing.assert_close(source.load("test", np.array([0]))[0], theirs)


def test_the_user_s_settings_come_first_and_a_smaller_crop_keeps_its_share(folder: Path) -> None:
    source = source_of(settings(folder, "data.image_size=112", "data.mean=[0.5,0.5,0.5]", "data.std=[1,1,1]"))
    assert (source.image_size, source.resize, source.mean, source.std) == (112, 116, (0.5,) * 3, (1.0,) * 3)
    assert source_of(settings(folder, "data.image_size=112", "data.resize=112")).resize == 112


def test_weights_from_a_file_name_nothing_and_recorded_settings_load_the_same_images(folder: Path) -> None:
    assert own_preprocessing("mobilenet_v2", "mine.safetensors") is None
    given = settings(folder)
    recorded = with_preprocessing(given, load_splits(given).source)
    weights = recorded.model.model_copy(update={"weights": None})
    assert source_of(recorded.model_copy(update={"model": weights})).resize == 232
    other = digits_config()
    assert with_preprocessing(other, load_splits(other).source) is other


def test_images_in_memory_take_a_scale_but_no_size() -> None:
    digits = load_source("digits")
    plain = adjust(digits, Preprocessing(mean=(0.0,), std=(1.0,)))
    assert float(plain.load("train", np.arange(50)).max()) == 1.0
    assert images_in_words(plain) == "1 x 8 x 8, mean 0, std 1"
    # Pretrained weights describe image files; images in memory have a size of their own.
    own = Preprocessing(224, 232, "bilinear", (0.5,) * 3, (0.5,) * 3)
    assert images_in_words(adjust(digits, Preprocessing(), own)) == images_in_words(digits)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Preprocessing(resize=16), r"data\.resize: 16 given, but the data set 'digits' .*: data\.mean, data\.std"),
        (Preprocessing(mean=(0.5, 0.5)), r"data\.mean: \[0\.5, 0\.5\] given, .* have 1 channel\. Give one number"),
    ],
)
def test_what_a_data_set_does_not_take_is_refused(wanted: Preprocessing, words: str) -> None:
    with pytest.raises(DataError, match=words):
        adjust(load_source("digits"), wanted)


def test_detectors_normalise_their_images_themselves() -> None:
    with pytest.raises(DataError, match=r"data\.mean: .* 'scattered_digits' does not take it; .*: none"):
        adjust(load_source("scattered_digits"), Preprocessing(mean=(0.5,)))


def test_a_crop_larger_than_the_image_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"data\.resize: 100 given, but the crop \(data\.image_size\) has 224"):
        load_splits(settings(folder, "data.resize=100"))
