"""Image files that somebody else made: 16 bits, endless strips, floods of pixels, damaged bytes."""

import resource
import struct
import time
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional

from prune_env.common.errors import DataError
from prune_env.data.folder import FolderSource
from prune_env.data.image_file import read_rgb


def folder_of(root: Path, picture: Image.Image, side: int = 224) -> FolderSource:
    """A folder of one image."""
    for split in ("train", "val"):
        (root / split / "class").mkdir(parents=True)
        picture.save(root / split / "class" / "image.png")
    return FolderSource.from_folder("mine", root, side)


def loaded(source: FolderSource) -> np.ndarray:
    """The image as a network sees it, in 0..255."""
    image = source.load("train", np.array([0]))[0]
    mean, std = np.array(source.mean)[:, None, None], np.array(source.std)[:, None, None]
    return 255 * (image.numpy() * std + mean).transpose(1, 2, 0)


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (500, 375), (97, 97), (31, 300)])
@pytest.mark.parametrize("side", [32, 224])
def test_the_crop_shows_what_torchvision_shows(tmp_path: Path, size: tuple[int, int], side: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    picture = Image.fromarray(noise)
    expected = functional.center_crop(functional.resize(picture, round(side * 256 / 224)), [side])
    assert np.abs(loaded(folder_of(tmp_path, picture, side)) - np.asarray(expected)).max() < 2.5


@pytest.mark.parametrize("size", [(30_000, 2), (2, 30_000), (60_000, 1)])
def test_an_endless_strip_costs_no_more_than_a_square(tmp_path: Path, size: tuple[int, int]) -> None:
    source = folder_of(tmp_path, Image.new("RGB", size, (10, 20, 30)))
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    np.testing.assert_allclose(loaded(source), np.broadcast_to([10, 20, 30], (224, 224, 3)), atol=0.01)
    assert time.process_time() - begun < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_ramp_of_16_bits_stays_a_ramp(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65_535, 256, dtype=np.uint16)
    Image.fromarray(np.tile(ramp, (4, 1))).save(tmp_path / "ramp.png")
    assert np.asarray(read_rgb(tmp_path / "ramp.png", "mine"))[0, :, 0].tolist() == list(range(256))


@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_numbers_without_a_largest_value_are_refused(tmp_path: Path, kind: str) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=kind)).save(tmp_path / "image.tiff")
    with pytest.raises(DataError, match=r"image\.tiff cannot be read as an image: its pixels are .* of 32 bits"):
        read_rgb(tmp_path / "image.tiff", "mine")


def test_a_flood_of_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A PNG of 60 kB that says that it has 400 million pixels."""
    file = BytesIO()
    Image.new("L", (1, 1)).save(file, format="PNG")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "flood.png").write_bytes(data)
    begun = time.process_time()
    with pytest.raises(DataError, match=r"flood\.png cannot be read as an image: "):
        read_rgb(tmp_path / "flood.png", "mine")
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_usual_kind_of_image_is_read(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tiff" if mode == "CMYK" else "image.png")
    Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(path)
    assert np.asarray(read_rgb(path, "mine")).tolist() == [[[255] * 3] * 3] * 2
