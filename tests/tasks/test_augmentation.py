"""Random changes of images: each image changes as its draws say, and in no other way."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prune_env.tasks.augmentation import AUGMENTATIONS, DRAWS, SHIFT, crop_flip, resized_crop_flip


def some_images(count: int = 12, height: int = 16, width: int = 24) -> Tensor:
    return 1.0 + torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def some_draws(count: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed))


def shifted_and_mirrored(image: Tensor, draws: list[float]) -> Tensor:
    height, width = image.shape[1:]
    down, right = height // SHIFT, width // SHIFT
    padded = F.pad(image, (right, right, down, down))
    top, left = int(draws[0] * (2 * down + 1)), int(draws[1] * (2 * right + 1))
    cut = padded[:, top : top + height, left : left + width]
    return cut.flip(2) if draws[2] < 0.5 else cut


def test_images_are_shifted_and_mirrored_as_the_draws_say() -> None:
    images, draws = some_images(), some_draws()
    # Include the least and the largest possible draw.
    draws[0, :3] = 0.0
    draws[1, :3] = 1.0 - 2.0**-24
    expected = [shifted_and_mirrored(image, row.tolist()) for image, row in zip(images, draws, strict=True)]
    assert torch.equal(crop_flip(images, draws), torch.stack(expected))


def test_no_draw_leaves_the_image_and_its_margin() -> None:
    images, draws = some_images(200), some_draws(200)
    for image, varied in zip(images, crop_flip(images, draws), strict=True):
        inside = varied != 0
        assert inside.float().mean() > 0.7
        assert bool(torch.isin(varied[inside], image).all())


def test_every_shift_is_drawn_and_half_of_the_images_are_mirrored() -> None:
    column = torch.arange(1.0, 17.0)[None, None, None].expand(2000, 1, 16, 16)
    varied = crop_flip(column, some_draws(2000))[:, 0, 8]
    mirrored = varied[:, 8] < varied[:, 7]
    assert 0.45 < mirrored.float().mean() < 0.55
    middles = torch.where(mirrored, varied[:, 7], varied[:, 8])
    assert set(middles.tolist()) == {7.0, 8.0, 9.0, 10.0, 11.0}


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_cut_of_the_whole_image_is_the_image(mirrored: bool) -> None:
    images = some_images(4)
    draws = torch.tensor([1.0, 0.5, 0.3, 0.7, 0.2 if mirrored else 0.8]).expand(4, DRAWS)
    expected = images.flip(3) if mirrored else images
    torch.testing.assert_close(resized_crop_flip(images, draws), expected, rtol=0.0, atol=1e-4)


def test_a_cut_shows_a_part_at_the_image_s_size() -> None:
    ramp = torch.linspace(0.0, 1.0, 64).expand(400, 1, 64, 64)
    draws = some_draws(400)
    spans = resized_crop_flip(ramp, draws)[:, 0, 0].diff(dim=1).sum(1)
    assert torch.equal(spans < 0, draws[:, 4] < 0.5)
    # A crop covers 0.35 to 1 of the area, and its sides differ by a factor of at most 4/3.
    assert 0.5 < spans.abs().min() < 0.57
    assert spans.abs().max() > 0.97
    assert bool(((ramp.min() <= resized_crop_flip(ramp, draws)) & (resized_crop_flip(ramp, draws) <= ramp.max())).all())


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_image_depends_on_its_own_draws_alone(name: str) -> None:
    images, draws = some_images(), some_draws()
    whole = AUGMENTATIONS[name](images, draws)
    shares = [AUGMENTATIONS[name](images[rank::3], draws[rank::3]) for rank in range(3)]
    for rank in range(3):
        assert torch.equal(shares[rank], whole[rank::3])


def test_none_leaves_images_as_they_are() -> None:
    images = some_images()
    assert torch.equal(AUGMENTATIONS["none"](images, some_draws()), images)
