"""How images become the input of a network: their size, and the scale of their intensities."""

from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, Self, runtime_checkable

from prune_env.common.errors import DataError
from prune_env.data.source import ImageSource

Interpolation = Literal["bilinear", "bicubic"]
"""How pixels are computed where an image is resized."""


@dataclass(frozen=True)
class Preprocessing:
    """What a user or a weights file says about a network's input; None where it says nothing.

    Attributes:
        image_size: Height and width of the input, cut from the middle of the resized image, in pixels.
        resize: Length of an image's shorter side before the cut, in pixels.
        interpolation: How pixels are computed when an image is resized.
        mean: Subtracted from each channel, in 0..1.
        std: Divides each channel, in 0..1.
    """

    image_size: int | None = None
    resize: int | None = None
    interpolation: Interpolation | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The values that are not None, by name."""
        return {key: value for key, value in vars(self).items() if value is not None}

    def under(self, user: Self) -> Self:
        """These values where the user gives none; ``resize`` keeps its share of the user's ``image_size``."""
        merged = {**self.given, **user.given}
        if user.image_size is not None and user.resize is None and self.resize and self.image_size:
            merged["resize"] = round(self.resize * user.image_size / self.image_size)
        return type(self)(**merged)


KEYS = tuple(field.name for field in fields(Preprocessing))
"""Names of the values, which are keys of the section ``data``."""


@runtime_checkable
class Adjustable(Protocol):
    """A data set whose preprocessing can be set."""

    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the loaded images; what is not None can be set. Image files have every value."""

    def adjusted(self, wanted: Preprocessing) -> ImageSource:
        """The same images with another preprocessing; None leaves a value as it is."""


def adjust(source: ImageSource, user: Preprocessing, own: Preprocessing | None = None) -> ImageSource:
    """Sets the preprocessing of a data set.

    Args:
        source: The data set.
        user: What the user says; ``image_size`` has been given to the data set's loader already.
        own: What the network's pretrained weights say, for images from files; the user's values come first.

    Raises:
        DataError: If the user gives a value that the data set cannot take, or not one for each channel.
    """
    can = source.preprocessing().given if isinstance(source, Adjustable) else {}
    for key, value in user.given.items():
        if key not in can and key != "image_size":
            allowed = ", ".join(f"data.{each}" for each in can) or "none"
            raise DataError(
                f"data.{key}: {_written(value)} given, but the data set {source.name!r} does not take it; allowed for "
                f"its images: {allowed}. Leave it out."
            )
        if key in ("mean", "std") and len(value) != source.channels:
            raise DataError(
                f"data.{key}: {_written(value)} given, but the images of {source.name!r} have {source.channels} "
                f"channel{'s' * (source.channels != 1)}. Give one number for each channel."
            )
    if not isinstance(source, Adjustable):
        return source
    # Images in memory have a size of their own, so pretrained weights cannot describe them.
    files = len(can) == len(KEYS)
    return source.adjusted(own.under(user) if own is not None and files else user)


def _written(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def describe_images(source: ImageSource) -> dict[str, Any]:
    """The size and the scale of a data set's loaded images as plain data; None where the data set does not resize."""
    known = source.preprocessing() if isinstance(source, Adjustable) else Preprocessing()
    return {
        "channels": source.channels,
        "image_size": list(source.size),
        "resize": known.resize,
        "interpolation": known.interpolation,
        "mean": list(source.mean),
        "std": list(source.std),
    }


def images_in_words(source: ImageSource) -> str:
    """As `describe_images`, for a person.

    Example:
        >>> from prune_env.data import load_source
        >>> images_in_words(load_source("digits"))
        '1 x 8 x 8, mean 0.3053, std 0.376'
    """
    record = describe_images(source)
    size = " x ".join(map(str, (record["channels"], *record["image_size"])))
    if record["resize"] is not None:
        size += f", cut from images of {record['resize']} ({record['interpolation']})"
    if not isinstance(source, Adjustable):
        return f"{size}, scaled by the data set"
    mean, std = (" ".join(f"{value:.4g}" for value in record[key]) for key in ("mean", "std"))
    return f"{size}, mean {mean}, std {std}"
