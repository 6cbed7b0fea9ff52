"""COCO JSON with categories of its own, as CVAT, Roboflow, Label Studio and others export it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from edgeseg.data.base import Files, listing, split_readable
from edgeseg.data.shapes import LabelledShapes, Region, Shape, all_corners, polygons, run_lengths, with_background
from edgeseg.data.splits import SPELLINGS, part

LAYOUT = """\
  {root}/annotations/instances_<split>.json    photos in {root}/images/<split>, {root}/images or {root}/<split>
  {root}/<split>/_annotations.coco.json        photos beside it; "valid" may stand for "val" (Roboflow)
or, divided by val_fraction (--val-fraction),
  {root}/annotations/instances_default.json    photos in {root}/images (CVAT)
  {root}/result.json                           photos in {root}/images (Label Studio)
or any file below {root} by annotations (--annotations) and a folder of photos by images (--image-dir)"""

LARGEST = 178_956_970  # pixels; Pillow refuses larger photos
WHOLE = ("annotations/instances_default.json", "result.json", "_annotations.coco.json")


class CocoJson(LabelledShapes):
    """Photos, and label maps that are drawn from the polygons and run lengths of a COCO JSON with any categories.

    The classes are the categories in the order of their ids, which may have gaps. Pixels outside of all objects are
    class 0, "background"; a category of that name takes its place. Where objects overlap, the smaller one lies on top,
    and crowds (`iscrowd`) lie below the others. Roboflow's category for the group of all others is left out, if nothing
    is annotated with it.

    Args:
        root: Folder with the annotations and photos.
        split: Name of the split in names of files or folders; "train" or "val" with `val_fraction`.
        annotations: The JSON below `root`; "{split}" in it stands for the split.
        images: Folder of the photos below `root`, in the same way; by default where tools put it.
        background: Make pixels outside of all objects class 0; else they are ignored, and class 0 is the first
            category.
        val_fraction: Share of the photos that become the split "val" by a hash of their names.
        options: `channels` and `on_error`, see `LabelledImages`; `on_unlabelled` says what to do about photos without
            annotations: "background" makes them background and warns, "skip" leaves them out.

    Raises:
        FileNotFoundError: the annotations or a photo is missing; prints the layout.
        ValueError: the JSON is damaged or contradicts itself; names the file and the annotation.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        annotations: str | os.PathLike[str] | None = None,
        images: str | os.PathLike[str] | None = None,
        background: bool = True,
        val_fraction: float | None = None,
        **options: Any,
    ) -> None:
        folder = Path(root)
        self.json = _find_json(folder, split, annotations, val_fraction)
        content = read_json(self.json)
        pictures, objects, categories = (
            by_id(content, key, self.json) for key in ("images", "annotations", "categories")
        )
        names = _category_names(self.json, categories, objects)
        task, ids, outside = with_background(list(names.values()), background, str(self.json))
        self.labels = {number: ids[name] for number, name in names.items()}
        self.objects: dict[Any, list[Mapping[str, Any]]] = {number: [] for number in pictures}
        for number, each in objects.items():
            self._add(number, each)
        where = _photo_folders(folder, split, self.json, images)
        paths = self._photos(pictures, where, missing_is_error=options.get("on_error", "stop") == "stop")
        if val_fraction is not None:
            items = [(PurePosixPath(_name(each)).with_suffix("").as_posix(), n) for n, each in pictures.items()]
            chosen = set(part(items, split, val_fraction))
            paths = {path: number for path, number in paths.items() if number in chosen}
        self.ids, self.pictures = paths, pictures
        # The annotations stand for all label maps.
        files = [Files((path,), {"segmentation": self.json}) for path in paths]
        if options.get("on_error", "stop") == "stop":
            _, wrong = split_readable(files, self._check)
            if wrong:
                raise ValueError(listing(wrong))
        super().__init__(files, task, outside, **options)

    def _add(self, number: Any, each: Mapping[str, Any]) -> None:
        """Files an annotation under its image."""
        image, category = each.get("image_id"), each.get("category_id")
        if not isinstance(image, int | str) or image not in self.objects:
            raise ValueError(f"{self.json}: annotation {number} belongs to image {image!r}, which is not listed")
        if not isinstance(category, int | str) or category not in self.labels:
            raise ValueError(f"{self.json}: annotation {number} has category {category!r}, which is not listed")
        self.objects[image].append(each)

    def _photos(self, pictures: Mapping[Any, Any], folders: list[Path], *, missing_is_error: bool) -> dict[Path, Any]:
        """The files of the photos, with the ids of their images."""
        paths: dict[Path, Any] = {}
        missing = []
        for number, each in pictures.items():
            if not isinstance(each.get("file_name"), str):
                raise ValueError(f"{self.json}: image {number} has no file_name")
            path = _find_photo(_name(each), folders)
            if not path.is_file():
                missing.append(f"the photo {each['file_name']!r} of image {number} is missing")
            if path in paths:
                raise ValueError(f"{self.json}: the images {paths[path]} and {number} are the same photo, {path}")
            paths[path] = number
        if missing and missing_is_error:
            raise FileNotFoundError(
                f"{self.json}: {listing(missing)}; looked in {', '.join(map(str, folders))}; images (--image-dir) is "
                "the folder of photos"
            )
        return paths

    def _check(self, files: Files) -> None:
        """Raises the errors of drawing, without drawing the polygons."""
        size = self.stated_size(files)
        for each in self.objects[self.ids[files.images[0]]]:
            where, shape = f"{self.json}: annotation {each['id']}", each.get("segmentation")
            if isinstance(shape, Mapping):
                run_lengths(shape, size, where)
            else:
                all_corners(shape, size, where)

    def has_shapes(self, files: Files) -> bool:
        """Whether an image has annotations."""
        return bool(self.objects[self.ids[files.images[0]]])

    def stated_size(self, files: Files) -> tuple[int, int]:
        """Height and width that the JSON states."""
        number = self.ids[files.images[0]]
        height, width = (self.pictures[number].get(key) for key in ("height", "width"))
        if type(height) is not int or type(width) is not int or min(height, width) < 1:
            raise ValueError(
                f"{self.json}: image {number} has no height and width, got {height!r:.60} and {width!r:.60}"
            )
        if height * width > LARGEST:
            raise ValueError(f"{self.json}: image {number} has more than {LARGEST} pixels")
        return height, width

    def shapes(self, files: Files, size: tuple[int, int]) -> Iterator[Shape]:
        """Yields the objects of an image."""
        for each in self.objects[self.ids[files.images[0]]]:
            where = f"{self.json}: annotation {each['id']}"
            yield Shape(self.labels[each["category_id"]], _region(each, size, where), below=bool(each.get("iscrowd")))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file that has a dictionary; raises a ValueError that names it for any other."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a dictionary, as annotation tools write it, got a {type(content).__name__}")
    return content


def by_id(content: Mapping[str, Any], key: str, path: Path) -> dict[Any, dict[str, Any]]:
    """The entries of a list of a COCO JSON by their ids; raises a ValueError for entries without and for equal ids."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise ValueError(f"{path} has no list {key!r}; a COCO JSON has images, annotations and categories")
    found: dict[Any, dict[str, Any]] = {}
    for i, each in enumerate(entries):
        if not isinstance(each, dict) or not isinstance(each.get("id"), int | str):
            raise ValueError(f"{path}: entry {i} of {key} has no id")
        if each["id"] in found:
            raise ValueError(f"{path}: two entries of {key} have the id {each['id']}")
        found[each["id"]] = each
    return found


def _category_names(path: Path, categories: Mapping[Any, Any], objects: Mapping[Any, Any]) -> dict[Any, str]:
    """The names by ids, in the order of the ids, without Roboflow's category of all others."""
    for number, each in categories.items():
        if not isinstance(each.get("name"), str) or not each["name"].strip():
            raise ValueError(f"{path}: category {number} has no name")
    used = {str(each.get("category_id")) for each in objects.values()}
    names: dict[Any, str] = {}
    for number in sorted(categories, key=lambda number: (isinstance(number, str), number)):
        name = categories[number]["name"]
        others = [str(each.get("supercategory")) for key, each in categories.items() if key != number]
        group = len(others) > 0 and set(others) == {name} and categories[number].get("supercategory") == "none"
        if str(number) in used or not group:
            names[number] = name
    return names


def _region(each: Mapping[str, Any], size: tuple[int, int], where: str) -> Region:
    shape = each.get("segmentation")
    return run_lengths(shape, size, where) if isinstance(shape, Mapping) else polygons(shape, size, where)


def _find_json(root: Path, split: str, given: str | os.PathLike[str] | None, fraction: float | None) -> Path:
    if given is not None:
        names = [os.fspath(given).replace("{split}", split)]
    elif fraction is not None:
        names = list(WHOLE)
    else:
        spelled = [form for name in SPELLINGS.get(split, (split,)) for form in (name, name.capitalize())]
        names = [f"{name}/_annotations.coco.json" for name in spelled]
        names += [f"annotations/{start}{name}.json" for start in ("instances_", "") for name in spelled]
    found = next((root / name for name in names if (root / name).is_file()), None)
    if found is None:
        whole = next((root / name for name in WHOLE if (root / name).is_file()), None)
        hint = f"; {whole} can be divided by val_fraction=0.2 (--val-fraction 0.2)" if whole and not given else ""
        raise FileNotFoundError(f"{root / names[0]} is missing{hint}; expected\n{LAYOUT.format(root=root)}")
    return found


def _photo_folders(root: Path, split: str, file: Path, given: str | os.PathLike[str] | None) -> list[Path]:
    if given is not None:
        return [root / os.fspath(given).replace("{split}", split)]
    folders = [file.parent, file.parent / "images"]
    folders += [root / start / name for start in ("images", "") for name in SPELLINGS.get(split, (split,))]
    return [folder for folder in dict.fromkeys([*folders, root / "images", root]) if folder.is_dir()]


def _name(image: Mapping[str, Any]) -> str:
    """The name of a photo with slashes; exports of Windows have backslashes."""
    return str(image["file_name"]).replace("\\", "/")


def _find_photo(name: str, folders: list[Path]) -> Path:
    """The photo in one of the folders, by as much of its path as exists: exports may have paths of a server."""
    parts = [step for step in PurePosixPath(name).parts if step not in ("/", "..")]
    for start in range(len(parts)):
        for folder in folders:
            if folder.joinpath(*parts[start:]).is_file():
                return folder.joinpath(*parts[start:])
    return folders[0].joinpath(*parts)
