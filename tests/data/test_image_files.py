"""Image files that somebody else made: 16 bits, endless strips, floods of pixels, damaged bytes."""

import resource
import struct
import subprocess
import sys
import time
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image
from torchvision.transforms import functional

from prune_env.common.errors import DataError
from prune_env.data.folder import FolderSource
from prune_env.data.image_file import FORMATS, LARGE, MOST_PIXELS, opened_image, rgb_of, size_of


def read_rgb(path: Path, data_set: str) -> Image.Image:
    with opened_image(path, data_set) as opened:
        return rgb_of(opened, (224, 224)).copy()


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


def test_a_long_ramp_of_16_bits_of_another_machine_stays_a_ramp(tmp_path: Path) -> None:
    """Longer than the rows that are converted at once."""
    ramp = np.linspace(0, 65_535, 4_000_000, dtype=">u2").reshape(2_000, 2_000)
    Image.frombytes("I;16B", (2_000, 2_000), ramp.tobytes()).save(tmp_path / "ramp.tiff")
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "ramp.tiff", "mine"))[..., 2], ramp >> 8)


@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_numbers_without_a_largest_value_are_refused(tmp_path: Path, kind: str) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=kind)).save(tmp_path / "image.tiff")
    with pytest.raises(DataError, match=r"image\.tiff cannot be read as an image: its pixels are .* of 32 bits"):
        read_rgb(tmp_path / "image.tiff", "mine")


def header(path: Path, width: int, height: int) -> Path:
    """A PNG of a few bytes that says that it has this size."""
    file = BytesIO()
    Image.new("L", (1, 1)).save(file, format="PNG")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("side", [20_000, 9_700, 7_800])
def test_a_flood_of_pixels_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    flood = header(tmp_path / "flood.png", side, side)
    begun = time.process_time()
    words = rf"flood\.png cannot be read as an image: it has {side}x{side} pixels; allowed are 60,000,000 in all"
    with warnings.catch_warnings(action="error"):
        with pytest.raises(DataError, match=words):
            read_rgb(flood, "mine")
        with pytest.raises(ValueError, match=words):
            size_of(flood)
    assert time.process_time() - begun < 1


GROWTH = """
import resource, sys
from prune_env.data.folder import FolderSource
from prune_env.data.image_file import opened_image, rgb_of

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with opened_image(sys.argv[1], "mine") as opened:
    print(rgb_of(opened, (224, 224)).resize((224, 224)).size, file=sys.stderr)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
"""Prints by how many KiB an image makes the process grow."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "RGBA"), ("a.png", "I;16"), ("a.png", "RGB"), ("a.tiff", "CMYK"), ("a.webp", "RGBA"), ("a.gif", "P")],
)
def test_the_largest_image_takes_less_than_500_mb(tmp_path: Path, name: str, mode: str) -> None:
    pixels = MOST_PIXELS // 2 if name.endswith("webp") else MOST_PIXELS
    more = {"lossless": True, "quality": 0, "method": 0} if name.endswith("webp") else {}
    Image.new(mode, (8_000, pixels // 8_000)).save(tmp_path / name, **more)
    done = subprocess.run([sys.executable, "-c", GROWTH, tmp_path / name], capture_output=True, text=True, check=True)
    assert done.stderr == "(224, 224)\n"
    assert 1024 * int(done.stdout) < 500e6


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(tmp_path: Path) -> None:
    Image.radial_gradient("L").resize((3_000, 2_800)).save(tmp_path / "large.jpg")
    Image.radial_gradient("L").resize((3_000, 2_800)).save(tmp_path / "large.png")
    whole, part = read_rgb(tmp_path / "large.png", "mine"), read_rgb(tmp_path / "large.jpg", "mine")
    assert (whole.size, part.size) == ((3_000, 2_800), (750, 700))
    difference = np.asarray(whole.resize((224, 224)), dtype=int) - np.asarray(part.resize((224, 224)))
    assert np.abs(difference).max() <= 3


def test_large_images_are_read_one_at_a_time(tmp_path: Path) -> None:
    large = header(tmp_path / "large.png", 1_000, LARGE // 1_000 + 1)
    small = header(tmp_path / "small.png", 1_000, LARGE // 1_000)
    opened: list[Path] = []

    def read(path: Path) -> None:
        with opened_image(path, "mine"):
            opened.append(path)

    waiting = Thread(target=read, args=[large])
    with opened_image(large, "mine"):
        waiting.start()
        read(small)
        waiting.join(0.2)
        assert opened == [small]
    waiting.join(10)
    assert opened == [small, large]


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "PCX", "TGA"])
def test_a_file_of_another_format_is_refused_whatever_its_name(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An EPS file would be given to Ghostscript, which runs it."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("an interpreter was called"))
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", format=kind)
    words = "x.png cannot be read as an image: it is damaged, or of another format than PNG, JPEG, PPM, BMP, TIFF"
    with pytest.raises(DataError, match=words):
        read_rgb(tmp_path / "x.png", "mine")
    with pytest.raises(ValueError, match=words):
        size_of(tmp_path / "x.png")


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
def test_every_format_is_read_whatever_its_name(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (3, 2), (255, 255, 255)).save(tmp_path / "x.png", format=kind)
    assert np.asarray(read_rgb(tmp_path / "x.png", "mine")).tolist() == [[[255] * 3] * 3] * 2
    assert size_of(tmp_path / "x.png") == (2, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_usual_kind_of_image_is_read(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tiff" if mode == "CMYK" else "image.png")
    Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(path)
    assert np.asarray(read_rgb(path, "mine")).tolist() == [[[255] * 3] * 3] * 2
