"""Images with boxes in COCO's layout: one JSON file of annotations for each split."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from prune_env.common.errors import DataError
from prune_env.common.text import quoted
from prune_env.data.box_source import DEFAULT_SIDE, BoxedImages, BoxSource, ImageFile, refuse_repeated, scaled
from prune_env.data.boxes import LeftOut, box_target
from prune_env.data.image_file import LONGEST_SIDE
from prune_env.data.registry import existing_path, not_found, register_source, sides_of
from prune_env.data.source import ImageSize

LAYOUT = "a folder with annotations/instances_train*.json, annotations/instances_val*.json and the folders of images"

LARGEST = 90
"""Category ids from 1 to this number are labels as they are, so that networks trained on COCO fit."""


@register_source("coco")
def load_coco(path: Path | None = None, image_size: ImageSize | None = None) -> BoxSource:
    """Any tree in COCO's layout; tests on the val split. Boxes around crowds are left out."""
    root = existing_path("coco", path, LAYOUT)
    documents = {split: _document(root, split) for split in ("train", "val")}
    categories = _categories(documents)
    labels = {number: number for number in categories}
    if not all(1 <= number <= LARGEST for number in categories):
        labels = {number: label for label, number in enumerate(sorted(categories), start=1)}
    names = [f"unused {label}" for label in range(1, max(labels.values()) + 1)]
    for number, label in labels.items():
        names[label - 1] = categories[number]
    canvas, left_out = sides_of(image_size or DEFAULT_SIDE), LeftOut()
    parts = {
        split: _boxed(root, file, document, labels, canvas, left_out) for split, (file, document) in documents.items()
    }
    refuse_repeated("coco", *parts.values())
    left_out.tell("coco")
    return BoxSource("coco", tuple(names), canvas, parts["train"], parts["val"])


def _document(root: Path, split: str) -> tuple[Path, Mapping[str, Any]]:
    """The annotations of a split, with their file."""
    files = sorted((root / "annotations").glob(f"instances_{split}*.json"))
    if not files:
        raise not_found("coco", root, LAYOUT)
    try:
        document = json.loads(files[0].read_text(encoding="utf-8"))
        lacking = [key for key in ("images", "annotations", "categories") if not isinstance(document[key], list)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"data set 'coco': {files[0]} is no annotation file in COCO's form: {error!r}") from error
    if lacking:
        raise DataError(f"data set 'coco': {files[0]}: {lacking[0]!r} must be a list")
    return files[0], document


def _categories(documents: Mapping[str, tuple[Path, Mapping[str, Any]]]) -> dict[int, str]:
    """Names by category id, which must be those of the training split in every split."""
    found: dict[int, str] = {}
    for file, document in documents.values():
        for category in document["categories"]:
            try:
                number, name = _whole(category["id"]), str(category["name"])
            except (KeyError, TypeError) as error:
                raise DataError(
                    f"data set 'coco': {file}: a category needs a name, and an id that is a whole number; "
                    f"given {category!r:.100}; correct the file"
                ) from error
            if found.setdefault(number, name) != name:
                raise DataError(
                    f"data set 'coco': {file}: category {number} is {name!r} here and {found[number]!r} in the "
                    "training split; give both splits the same categories"
                )
    if not found:
        raise DataError(f"data set 'coco': {documents['train'][0]} has no categories")
    return found


def _boxed(
    root: Path,
    file: Path,
    document: Mapping[str, Any],
    labels: Mapping[int, int],
    canvas: tuple[int, int],
    left_out: LeftOut,
) -> BoxedImages:
    """The images of a split in the order of the file, also those without boxes."""
    folder = _folder(root, file)
    present = {path.name for path in folder.iterdir()}
    images: dict[int, ImageFile] = {}
    missing: list[str] = []
    for entry in document["images"]:
        number, image_file = _image_of(entry, folder, f"data set 'coco': {file}")
        if number in images:
            raise DataError(
                f"data set 'coco': {file}: two images have the id {number}, so their boxes cannot be told apart; give "
                "each image its own id"
            )
        images[number] = image_file
        inside = image_file.path.relative_to(folder)
        if str(inside) not in present and not (len(inside.parts) > 1 and image_file.path.is_file()):
            missing.append(str(inside))
    if missing:
        raise DataError(
            f"data set 'coco': {file} names {len(missing)} images that {folder} does not hold, such as {missing[0]!r}; "
            "add the files, or remove the images from the annotations"
        )
    boxes: dict[int, list[list[float]]] = {number: [] for number in images}
    numbers: dict[int, list[int]] = {number: [] for number in images}
    for annotation in document["annotations"]:
        image, category = _checked(annotation, file, images, labels)
        if annotation.get("iscrowd"):
            left_out.crowds += 1
            continue
        x, y, width, height = annotation["bbox"]
        boxes[image].append([x, y, x + width, y + height])
        numbers[image].append(labels[category])
    targets = [
        scaled(box_target(boxes[number], numbers[number], image.size, left_out), image.size, canvas)
        for number, image in images.items()
    ]
    return BoxedImages(list(images.values()), targets)


def _folder(root: Path, file: Path) -> Path:
    """The folder of a split's images: named as the split (train2017), in ``images`` or not, or ``images`` itself."""
    split = file.stem.removeprefix("instances_")
    places = [root / split, root / "images" / split, root / "images"]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise DataError(
            f"data set 'coco': the images of {file.name} were looked for in {', '.join(map(str, places))}; none exists"
        )
    return found


def _image_of(entry: Any, folder: Path, place: str) -> tuple[int, ImageFile]:
    """The id and the file of an entry of ``images``."""
    try:
        number, height, width = (_whole(entry[key]) for key in ("id", "height", "width"))
        name = PurePosixPath(entry["file_name"])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{place}: an image needs file_name, and id, height and width as whole numbers; given {entry!r:.200}; "
            "correct the file"
        ) from error
    if min(height, width) < 1 or max(height, width) > LONGEST_SIDE:
        raise DataError(
            f"{place}: image {quoted(number, 20)} has height {quoted(height, 20)} and width {quoted(width, 20)}; both "
            f"must be 1 to {LONGEST_SIDE:,} pixels; correct the file"
        )
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise DataError(
            f"{place}: image {number} has the file_name {str(entry['file_name'])!r}, but file names must be relative "
            f"to {folder}, without '..'; correct the file"
        )
    return number, ImageFile(folder / name, (height, width))


def _whole(value: Any) -> int:
    """A whole number of a file, also as 7.0.

    Raises:
        TypeError: If the value is something else.
    """
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        raise TypeError(f"{value!r} is no whole number")
    return int(value)


def _is_coordinate(value: Any) -> bool:
    """Whether a value of a file is a number that a float can hold; also NaN and infinity, which are left out later."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53)


def _checked(
    annotation: Any, file: Path, images: Mapping[int, ImageFile], labels: Mapping[int, int]
) -> tuple[int, int]:
    """The image and the category of an annotation."""
    if not isinstance(annotation, Mapping):
        raise DataError(
            f"data set 'coco': {file}: an annotation must be an object with image_id, category_id and bbox; given "
            f"{annotation!r:.100}; correct the file"
        )
    place = f"data set 'coco': {file}: annotation {annotation.get('id', '?')}"
    image: Any = annotation.get("image_id")
    category: Any = annotation.get("category_id")
    box = annotation.get("bbox")
    if not isinstance(image, int | float) or image not in images:
        raise DataError(f"{place} names the image {image!r}, which the file does not list; remove the annotation")
    if not isinstance(category, int | float) or category not in labels:
        raise DataError(
            f"{place} names the category {category!r}; the file's categories are "
            f"{', '.join(map(str, sorted(labels)[:10]))}{', ...' if len(labels) > 10 else ''}; add the category, or "
            "remove the annotation"
        )
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_coordinate, box))):
        raise DataError(f"{place}: bbox must be [x, y, width, height] in pixels, given {box!r:.100}")
    return int(image), int(category)
