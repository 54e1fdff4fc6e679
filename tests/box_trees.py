"""Small trees of images with boxes, as VOC and COCO lay them out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Objects = Sequence[tuple[str, tuple[float, float, float, float]]]


def picture(path: Path, height: int, width: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def voc_tree(
    root: Path, lists: Mapping[str, Sequence[str]], objects: Mapping[str, Objects], size: tuple[int, int] = (40, 60)
) -> Path:
    """A VOC tree; ``objects`` gives name and corners of each image, ``lists`` the images of each list."""
    for number, (name, inside) in enumerate(objects.items()):
        picture(root / "JPEGImages" / f"{name}.png", *size, seed=number)
        found = "".join(
            f"<object><name>{kind}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            "</bndbox></object>"
            for kind, (x0, y0, x1, y1) in inside
        )
        (root / "Annotations").mkdir(exist_ok=True)
        text = f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height></size>{found}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)
    for split, names in lists.items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def coco_tree(root: Path, **changes: Any) -> Path:
    """A COCO tree of three images a split, the last without boxes; ``changes`` replace keys of the train file."""
    for seed, split in enumerate(("train", "val")):
        sizes = [(40, 60), (60, 40), (20, 20)]
        for number, size in enumerate(sizes):
            picture(root / split / f"{number}.png", *size, seed=10 * seed + number)
        document: dict[str, Any] = {
            "images": [
                {"id": 7 + number, "file_name": f"{number}.png", "height": height, "width": width}
                for number, (height, width) in enumerate(sizes)
            ],
            "categories": [{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 2, "bbox": [6, 4, 30, 20], "iscrowd": 0},
                {"id": 2, "image_id": 7, "category_id": 5, "bbox": [10, 10, 10, 10]},
                {"id": 3, "image_id": 8, "category_id": 5, "bbox": [0, 0, 40, 60]},
            ],
        }
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        named = {**document, **(changes if split == "train" else {})}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(named))
    return root
