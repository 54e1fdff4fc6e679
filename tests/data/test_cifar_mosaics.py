import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prune_env.common.errors import DataError
from prune_env.data import ArraySource, load_source


def write_mosaics(folder: Path) -> dict[str, np.ndarray]:
    """Two mosaics of 2x2 tiles for training, one for testing, in the layout of the known CIFAR-10 folder."""
    generator = np.random.default_rng(0)
    arrays = {
        "train_images": generator.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8),
        "test_images": generator.integers(0, 256, (4, 4, 4, 3), dtype=np.uint8),
    }
    meta: dict[str, object] = {"tile": 4, "grid": 2, "classes": ["a", "b", "c"]}
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        images = arrays[f"{split}_images"]
        for number, part in enumerate(images.reshape(-1, 2, 2, 4, 4, 3)):
            mosaic = part.transpose(0, 2, 1, 3, 4).reshape(8, 8, 3)
            Image.fromarray(mosaic).save(folder / f"{split}_{number:02d}.webp", lossless=True)
        meta[split] = {"n": len(images), "sha256_nhwc": hashlib.sha256(images.tobytes()).hexdigest()}
    (folder / "meta.json").write_text(json.dumps(meta))
    return arrays


@pytest.mark.parametrize("folder", ["", "cifar10"])
def test_cifar10_is_read_from_mosaics(tmp_path: Path, folder: str) -> None:
    arrays = write_mosaics(tmp_path / "root" / folder)
    source = load_source("cifar10", tmp_path / "root")
    assert isinstance(source, ArraySource)
    assert np.array_equal(source.train.images, arrays["train_images"])
    assert np.array_equal(source.test.images, arrays["test_images"])
    assert source.targets("train").tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("pixel", r"test_\*\.webp in .* damaged: the decoded images differ from the SHA-256"),
        ("file", "damaged or incomplete"),
        ("missing", "damaged or incomplete"),
        ("meta", "damaged or incomplete"),
        ("key", r"damaged or incomplete \(KeyError: 'grid'\)"),
    ],
)
def test_damaged_mosaics_are_refused(tmp_path: Path, damage: str, message: str) -> None:
    folder = tmp_path / "cifar10"
    arrays = write_mosaics(folder)
    mosaic = folder / "test_00.webp"
    if damage == "pixel":
        images = arrays["test_images"]
        images[0, 0, 0, 0] ^= 1
        pixels = images.reshape(2, 2, 4, 4, 3).transpose(0, 2, 1, 3, 4).reshape(8, 8, 3)
        Image.fromarray(pixels).save(mosaic, lossless=True)
    elif damage == "file":
        mosaic.write_bytes(mosaic.read_bytes()[:40])
    elif damage == "missing":
        mosaic.unlink()
    elif damage == "meta":
        (folder / "meta.json").write_text("{")
    else:
        (folder / "meta.json").write_text('{"tile": 4}')
    with pytest.raises(DataError, match=message):
        load_source("cifar10", folder)


@pytest.mark.shared
def test_the_whole_cifar10_is_read_and_verified(shared_data: Path) -> None:
    source = load_source("cifar10", shared_data / "cifar10")
    assert np.bincount(source.targets("train")).tolist() == [5000] * 10
    assert np.bincount(source.targets("test")).tolist() == [1000] * 10
    assert source.load("train", np.array([0, 49_999])).shape == (2, 3, 32, 32)
