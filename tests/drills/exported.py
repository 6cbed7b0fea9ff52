"""Exported files: in their runtimes, as what they say of themselves, and ONNX files as weights."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import edgeseg
from edgeseg.cli import main
from edgeseg.predict.facts import APPENDED, read_facts
from edgeseg.weights.load import count_classes, load_checkpoint

from .damage import damaged_bytes, damaged_json, damaged_protobuf, either
from .drill import NAME, Drill, all_hold
from .models import PHOTO, expect_map, kept, small


def make(suffix: str, folder: Path) -> None:
    edgeseg.export(small(), folder / f"model{suffix}")


def damage(ways: Callable[[Random, bytes], bytes], rng: Random, seeds: Path, work: Path) -> None:
    sources = sorted(seeds.iterdir())
    chosen = rng.choice([path for path in sources if path.suffix != ".bin"] * 4 + sources)
    for source in sources:
        data = source.read_bytes()
        way = damaged_bytes if source.suffix == ".bin" else ways
        (work / f"{NAME}{source.suffix}").write_bytes(way(rng, data) if source == chosen else data)


def _facts(rng: Random, data: bytes) -> bytes:
    """Damages what stands behind the content of a file, or the record in it."""
    file = io.BytesIO(data)
    with zipfile.ZipFile(file) as archive:
        facts = archive.read(APPENDED).decode()
        start = min(entry.header_offset for entry in archive.infolist())
    content = json.loads(facts)
    key = rng.choice(("edgeseg", "edgeseg_file", ""))
    if key:
        content[key] = damaged_json(rng, content[key])
    result = io.BytesIO(data[:start])
    result.seek(0, io.SEEK_END)
    with zipfile.ZipFile(result, "a") as archive:
        archive.writestr(APPENDED, json.dumps(content) if key else damaged_json(rng, facts))
    return result.getvalue()


def _onnx_record(rng: Random, data: bytes) -> bytes:
    import onnx

    file = onnx.load_from_string(data)
    entry = rng.choice([each for each in file.metadata_props if each.key.startswith("edgeseg")])
    entry.value = damaged_json(rng, entry.value).encode("utf-8", "replace").decode()
    return file.SerializeToString()


def _xml(rng: Random, data: bytes) -> bytes:
    """Damages an attribute, removes or repeats an element, or damages the record."""
    tree = ElementTree.fromstring(data.decode())
    elements = [(parent, child) for parent in tree.iter() for child in parent]
    parent, child = rng.choice(elements)
    match rng.randrange(5):
        case 0:
            parent.remove(child)
        case 1:
            parent.insert(0, child)
        case 2 if child.attrib:
            name = rng.choice(sorted(child.attrib))
            child.set(
                name, rng.choice(("", "-1", "0", "1", "4294967296", "9" * 30, "nan", "x", "f32", "u8", "?", "1,2"))
            )
        case 3:
            child.text = rng.choice(("", "-1", "9" * 30, "x"))
        case _:
            for element in tree.iter("edgeseg"):
                if element.get("value"):
                    element.set(
                        "value", damaged_json(rng, element.get("value", "")).encode("ascii", "replace").decode()
                    )
    return ElementTree.tostring(tree)


def read(work: Path) -> None:
    path = next(path for path in sorted(work.iterdir()) if path.suffix != ".bin")

    def run(_: Path) -> None:
        expect_map(edgeseg.load_segmenter(path, threads=1).predict(PHOTO))

    def described(_: Path) -> None:
        status = main(["info", str(path)])
        if status != 0:
            raise ValueError(f"{NAME} is refused by edgeseg info")

    def weights(_: Path) -> None:
        count_classes(path)
        load_checkpoint(kept(), path)

    readers = [run, described, lambda _: read_facts(path)]
    all_hold(work, *readers, *([weights] if path.suffix == ".onnx" else []))


def _drill(name: str, suffix: str, ways: Callable[[Random, bytes], bytes], needs: str) -> Drill:
    return Drill(name, partial(make, suffix), partial(damage, ways), read, 1000, needs)


DRILLS = (
    _drill("onnx", ".onnx", either(damaged_bytes, damaged_protobuf, damaged_protobuf, _onnx_record), "onnxscript"),
    _drill("tflite", ".tflite", either(damaged_bytes, _facts), "litert_torch"),
    _drill("pte", ".pte", either(damaged_bytes, _facts), "executorch"),
    _drill("xml", ".xml", either(damaged_bytes, _xml, _xml), "openvino"),
)
