"""Images with boxes in PASCAL VOC's layout."""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from prune_env.common.errors import DataError
from prune_env.common.text import quoted
from prune_env.data.box_source import DEFAULT_SIDE, BoxedImages, BoxSource, ImageFile, refuse_repeated, scaled
from prune_env.data.boxes import LeftOut, box_target
from prune_env.data.image_file import LONGEST_SIDE, size_of
from prune_env.data.registry import existing_path, not_found, register_source, sides_of
from prune_env.data.source import ImageSize

LAYOUT = "a folder with JPEGImages, Annotations and ImageSets/Main/{train,val}.txt or {trainval,test}.txt"


@dataclass(frozen=True)
class _Annotated:
    """One image of a list with its boxes as they stand in the annotation."""

    file: ImageFile
    names: tuple[str, ...]
    boxes: tuple[tuple[float, ...], ...]


@register_source("voc")
def load_voc(path: Path | None = None, image_size: ImageSize | None = None) -> BoxSource:
    """Any tree in PASCAL VOC's layout; trains on trainval if there is a test list, else on train and tests on val."""
    root = existing_path("voc", path, LAYOUT)
    lists = root / "ImageSets" / "Main"
    train, test = ("trainval", "test") if (lists / "test.txt").is_file() else ("train", "val")
    annotated = {split: _annotated(root, lists / f"{split}.txt") for split in (train, test)}
    names = tuple(sorted({name for images in annotated.values() for image in images for name in image.names}))
    if not names:
        raise DataError(f"data set 'voc': no annotation in {root / 'Annotations'} holds an object")
    canvas, left_out = sides_of(image_size or DEFAULT_SIDE), LeftOut()
    parts = {split: _boxed(images, names, canvas, left_out) for split, images in annotated.items()}
    refuse_repeated("voc", *parts.values())
    left_out.tell("voc")
    return BoxSource("voc", names, canvas, parts[train], parts[test])


def _annotated(root: Path, listed: Path) -> list[_Annotated]:
    """The images of a list; reads no image unless an annotation lacks its size."""
    if not listed.is_file():
        raise not_found("voc", listed, LAYOUT)
    try:
        lines = [line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(
            f"data set 'voc': {listed} is no list of image names, one a line, in UTF-8: {error}; correct the file"
        ) from error
    present = {file.stem: file for file in sorted((root / "JPEGImages").glob("*"))}
    # Lists of one class have a second column; names may have spaces.
    names = [line if line in present else line.split()[0] for line in lines]
    missing = [name for name in names if name not in present]
    if missing:
        raise DataError(
            f"data set 'voc': {listed} names {len(missing)} images that {root / 'JPEGImages'} does not hold, such as "
            f"{missing[0]!r}; add the files, or remove their lines from the list"
        )
    return [_read(root / "Annotations" / f"{name}.xml", present[name]) for name in names]


def _read(path: Path, image: Path) -> _Annotated:
    try:
        document = ElementTree.parse(path).getroot()
        size = _size(document, image)
        objects = document.findall("object")
        edges = [[float(_text(one, f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")] for one in objects]
        # VOC counts pixels from 1 and includes the last one; a box without width or height stays so, to be left out.
        boxes = tuple((x0 - float(x1 > x0), y0 - float(y1 > y0), x1, y1) for x0, y0, x1, y1 in edges)
        names = tuple(_text(one, "name") for one in objects)
    except FileNotFoundError as error:
        raise DataError(
            f"data set 'voc': {path} does not exist; every listed image needs an annotation, also without objects"
        ) from error
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise DataError(f"data set 'voc': {path} is no annotation in VOC's form: {error}") from error
    return _Annotated(ImageFile(image, size), names, boxes)


def _size(document: ElementTree.Element, image: Path) -> tuple[int, int]:
    """Height and width from the annotation; from the image where the annotation has none, or zeros."""
    sides = [int(document.findtext(f"size/{key}") or 0) for key in ("height", "width")]
    if max(sides) > LONGEST_SIDE:
        height, width = (quoted(side, 20) for side in sides)
        raise ValueError(
            f"the image has height {height} and width {width}; at most {LONGEST_SIDE:,} pixels are allowed; correct "
            "the file"
        )
    if min(sides) > 0:
        return sides[0], sides[1]
    return size_of(image)


def _text(element: ElementTree.Element, key: str) -> str:
    text = (element.findtext(key) or "").strip()
    if not text:
        raise ValueError(f"an object has no {key}")
    return text


def _boxed(images: list[_Annotated], names: tuple[str, ...], canvas: tuple[int, int], left_out: LeftOut) -> BoxedImages:
    labels = {name: number for number, name in enumerate(names, start=1)}
    targets = [
        scaled(
            box_target(image.boxes, [labels[name] for name in image.names], image.file.size, left_out),
            image.file.size,
            canvas,
        )
        for image in images
    ]
    return BoxedImages([image.file for image in images], targets)
