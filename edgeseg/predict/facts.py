"""Reads what an exported file says of itself, without the runtime that runs it."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from xml.etree import ElementTree

from edgeseg.machine.errors import value_errors
from edgeseg.predict.pte import HEADER, program_size

# Runtimes of flatbuffers ignore what stands behind the content of a file. A ZIP archive there is how TensorFlow Lite's
# own metadata are stored too.
APPENDED = "edgeseg.json"
LONGEST = 1 << 24  # bytes of a text
LITERT = b"TFL3"  # bytes 4 to 8 of a LiteRT file


def append_facts(path: Path, facts: Mapping[str, str]) -> None:
    """Appends texts by name to a file as a ZIP archive with one JSON file, with the same bytes for the same texts."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(APPENDED), json.dumps(facts))


def appended_facts(path: Path) -> Mapping[str, str]:
    """Reads what `append_facts` appended; nothing if there is nothing, or if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(_member(archive, APPENDED))
    except Exception:  # zipfile raises errors of many types
        return {}
    return facts if isinstance(facts, dict) and all(isinstance(value, str) for value in facts.values()) else {}


def _member(archive: zipfile.ZipFile, name: str) -> str:
    """A text in an archive; a ValueError if it takes more memory than any text that edgeseg writes."""
    with archive.open(name) as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ValueError(f"{name} in it is longer than {LONGEST} bytes")
    return content.decode()


def content_fact(content: bytes) -> dict[str, str]:
    """The fact by which `litert_content` knows that a content is whole."""
    return {"edgeseg_content": json.dumps({"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})}


def litert_content(path: Path) -> tuple[bytes, Mapping[str, str]]:
    """Reads a LiteRT file: its content without what is appended, and its facts; no facts if edgeseg did not write it.

    The interpreter does not check its content, and could end the process if the content were damaged.

    Raises:
        ValueError: no LiteRT file, or damaged; names the file.
    """
    content = path.read_bytes()
    if content[4:8] != LITERT:
        raise ValueError(f"cannot read {path}: not a LiteRT file")
    facts = appended_facts(path)
    if "edgeseg_content" not in facts:
        return content, {}
    try:
        length = json.loads(facts["edgeseg_content"])["bytes"]
        whole = facts["edgeseg_content"] == content_fact(content[:length])["edgeseg_content"]
    except (ValueError, KeyError, TypeError, RecursionError):  # no JSON, or JSON of another form
        whole = False
    if not whole:
        raise ValueError(f"cannot read {path}: corrupt; copy the file again, or export the network again")
    return content[:length], facts


def _damage(path: Path) -> AbstractContextManager[None]:
    return value_errors(path, f"cannot read {path}: corrupt or truncated")


def _onnx_facts(path: Path) -> Mapping[str, str]:
    with _damage(path):
        entries = _fields(memoryview(path.read_bytes())).get(14, [])  # ModelProto.metadata_props
        return _texts(entries)


def _program_facts(path: Path) -> Mapping[str, str]:
    with _damage(path), zipfile.ZipFile(path) as archive:
        extra = {Path(name).name: name for name in archive.namelist() if "/extra/" in f"/{name}"}
        return {name: _member(archive, place) for name, place in extra.items()}


def _executorch_facts(path: Path) -> Mapping[str, str]:
    with path.open("rb") as file:
        program_size(file.read(HEADER), path.stat().st_size, path)
    return appended_facts(path)


def _openvino_facts(path: Path) -> Mapping[str, str]:
    with _damage(path):
        entries = ElementTree.parse(path).find("rt_info/edgeseg")
    return {} if entries is None else {entry.tag: entry.get("value", "") for entry in entries}


def _core_ml_facts(path: Path) -> Mapping[str, str]:
    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    if not file.is_file():
        raise ValueError(f"cannot read {path}: no whole Core ML package, since it has no {file.relative_to(path)}")
    with _damage(path):
        content = memoryview(file.read_bytes())
        if not content:
            raise ValueError("the file is empty")
        for number in (2, 100):  # Model.description, ModelDescription.metadata
            content = _fields(content).get(number, [memoryview(b"")])[-1]
        return _texts(_fields(content).get(100, []))  # Metadata.userDefined


def _texts(entries: Iterable[memoryview]) -> dict[str, str]:
    """The texts of a map of strings in a protocol buffer, by their names."""
    pairs = [_fields(entry) for entry in entries]
    return {str(pair[1][0], "utf-8"): str(pair[2][0], "utf-8") for pair in pairs}


def _fields(message: memoryview) -> dict[int, list[memoryview]]:
    """The strings and messages of a protocol buffer by their numbers, without the library of its format."""
    fields: dict[int, list[memoryview]] = {}
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        if key & 7 == 0:
            _, place = _varint(message, place)
            continue
        length = {1: 8, 5: 4}.get(key & 7)
        if length is None:
            if key & 7 != 2:
                raise ValueError(f"no field of the type {key & 7}")
            length, place = _varint(message, place)
            fields.setdefault(key >> 3, []).append(message[place : place + length])
        place += length
    if place > len(message):
        raise ValueError("the content ends too early")
    return fields


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number, and the place after it."""
    value = shift = 0
    while message[place] & 128:
        if shift > 63:
            raise ValueError("a number has more than 64 bit")
        value |= (message[place] & 127) << shift
        place, shift = place + 1, shift + 7
    return value | message[place] << shift, place + 1


# Suffix -> reader.
FACTS: dict[str, Callable[[Path], Mapping[str, str]]] = {
    ".onnx": _onnx_facts,
    ".pt2": _program_facts,
    ".tflite": lambda path: litert_content(path)[1],
    ".pte": _executorch_facts,
    ".xml": _openvino_facts,
    ".mlpackage": _core_ml_facts,
}


def read_facts(path: str | os.PathLike[str]) -> Mapping[str, str]:
    """Reads the texts of an exported file by name, such as "edgeseg" for the record of its model, as JSON.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is corrupt, or its suffix is not that of an exported file.
    """
    file = Path(path)
    if file.suffix.lower() not in FACTS:
        raise ValueError(f"{path} is not an exported file; those end in {', '.join(FACTS)}")
    if not file.exists():
        raise FileNotFoundError(f"no file {path}")
    return FACTS[file.suffix.lower()](file)
