"""Registry of data sets, and the path of a data set's files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from prune_env.common.errors import DataError, UserError
from prune_env.common.registry import Registry
from prune_env.data.source import ImageSize, ImageSource

Loader: TypeAlias = Callable[[Path | None, Any], ImageSource]
"""A function of the path and of `ImageSize`, each None if not given."""

PATH_VARIABLE = "PRUNE_ENV_DATA"

SOURCES: Registry[Loader] = Registry("data set", "data.name", DataError)

OF_A_SOURCE = ("name", "classes", "channels", "size", "mean", "std", "augment", "targets", "load")
"""The attributes of every `ImageSource`."""


def register_source(name: str) -> Callable[[Loader], Loader]:
    """Registers a data set under a name.

    Args:
        name: The value of ``data.name`` in a configuration.

    Returns:
        A decorator that stores a callable of (path or None, image size or None) and returns it unchanged.

    Raises:
        ValueError: If the name is taken.
    """
    return SOURCES.register(name)


def load_source(name: str, path: str | Path | None = None, image_size: ImageSize | None = None) -> ImageSource:
    """Opens a data set by name.

    Args:
        name: A registered name, or ``package.module:callable`` for the user's own. The callable gets the path and
            the image size, each of which may be None, and returns an `ImageSource`.
        path: Path of the data set's files; None reads the environment variable PRUNE_ENV_DATA. ``digits`` needs none.
        image_size: Height and width of the images, in pixels; one number for both; None for the data set's own size
            (folders: 224).

    Returns:
        The data set.

    Raises:
        DataError: If the name is unknown, the files are missing or damaged, the images have another size, or the
            user's own callable fails or returns something else than a data set.
    """
    given = path or os.environ.get(PATH_VARIABLE) or None
    source = _opened(name, None if given is None else _without_tilde(Path(given)), image_size)
    if image_size is not None and source.size != sides_of(image_size):
        height, width = source.size
        raise DataError(
            f"data.image_size={image_size}: the images of {name!r} are {height}x{width} and are not resized; "
            "leave the setting out"
        )
    return source


def _without_tilde(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise DataError(
            f"data.path: {str(path)!r} begins in a home that nobody knows: HOME is not set; give the whole path"
        ) from None


def sides_of(image_size: ImageSize) -> tuple[int, int]:
    """Returns the height and the width that a setting gives as one number or two."""
    return (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])


def _opened(name: str, path: Path | None, image_size: ImageSize | None) -> ImageSource:
    loader = SOURCES.find(name)
    if name in SOURCES:
        return loader(path, image_size)
    try:
        source = loader(path, image_size)
    except UserError:
        raise
    except Exception as error:  # the user's callable may raise anything
        raise DataError(
            f"data set {name!r}: the call with the path {str(path)!r} and the image size {image_size} raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if missing := [attribute for attribute in OF_A_SOURCE if not hasattr(source, attribute)]:
        raise DataError(
            f"data set {name!r}: the callable returned {type(source).__name__}, which lacks {', '.join(missing)}; "
            "it must return a prune_env.data.ImageSource, for example an ArraySource"
        )
    return source


def existing_path(name: str, path: Path | None, forms: str) -> Path:
    """Checks the path of a data set that needs files.

    Args:
        name: The data set's name.
        path: The user's path; None if the user gave none.
        forms: The allowed layouts of the files, in words, for the error.

    Returns:
        ``path``, which exists.

    Raises:
        DataError: If no path was given or the path does not exist.
    """
    if path is None:
        raise DataError(
            f"data set {name!r} needs its files: {forms}; "
            f"give their path with data.path=... or the environment variable {PATH_VARIABLE}"
        )
    if not path.exists():
        raise not_found(name, path, forms)
    return path


def not_found(name: str, path: Path, forms: str) -> DataError:
    """Builds the error for a path that does not hold the data set.

    Args:
        name: The data set's name.
        path: The path that was searched.
        forms: The allowed layouts of the files, in words.

    Returns:
        The error, to be raised.
    """
    problem = "does not hold it" if path.exists() else "does not exist"
    return DataError(
        f"data set {name!r} was looked for at {path}, which {problem}; allowed: {forms}; "
        f"give the right path with data.path=... or the environment variable {PATH_VARIABLE}"
    )
