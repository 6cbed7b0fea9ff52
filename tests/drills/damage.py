"""Ways to damage files: any bytes, and the parts of formats, so that damage gets past the first check of a reader."""

from __future__ import annotations

import copy
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

EDGES = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
DEEP = "\0deep\0"  # stands for 100,000 nested lists, which Python cannot write
PLAIN: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 1e-300, 1e308, float("nan"), float("inf"), -0.5, 2**31, 2**63, -(2**63), 10**400,
    "", "x", "\x1b[31mred", "\ud800", "../../etc/passwd", "a" * 10000, [], {}, [0], [[1]], {"x": 1}, [1e9] * 4, DEEP,
)  # fmt: skip


def damaged_bytes(rng: Random, data: bytes) -> bytes:
    """Changes, removes, repeats or inserts bytes at one to three places."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(content) + 1)
        length = min(rng.choice((1, 2, 4, 8, 64, 1000)), len(content) - place)
        match rng.randrange(7):
            case 0 if length:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            case 1:
                content[place : place + length] = rng.randbytes(length)
            case 2:
                del content[place:]
            case 3:
                del content[place : place + length]
            case 4:
                content[place:place] = content[place : place + length]
            case 5:
                size = rng.choice((1, 2, 4, 8))
                number = rng.choice(EDGES) % (1 << 8 * size)
                content[place : place + size] = number.to_bytes(size, rng.choice(("little", "big")))
            case _:
                content[place : place + length] = bytes([rng.choice((0, 255))]) * length
    return bytes(content)


def damaged_json(rng: Random, text: str) -> str:
    """Replaces, removes, renames or repeats values at one to three places of a JSON text."""
    content = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = _damaged_value(rng, content)
    written = json.dumps(content)
    return written.replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)


def _damaged_value(rng: Random, content: Any) -> Any:
    places = list(_places(content))
    if not places:
        return copy.deepcopy(rng.choice(PLAIN))
    holder, key = rng.choice(places)
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(("x", "", "a.b", "\x1b[2J", key + key))] = holder.pop(key)
        case 2 if isinstance(holder[key], list):
            holder[key] = holder[key] * rng.choice((0, 2, 1000))
        case 2 | 3 if isinstance(holder[key], int | float):
            holder[key] = _damaged_number(rng, holder[key])
        case 4 if isinstance(holder[key], dict) and holder[key]:
            first = next(iter(holder[key].values()))
            holder[key] |= {f"n{i}": first for i in range(rng.choice((1, 3000)))}
        case _:
            holder[key] = copy.deepcopy(rng.choice(PLAIN))
    return content


def _damaged_number(rng: Random, number: float) -> Any:
    third = number / 3 if abs(number) < 1e300 else 1 / 3
    return rng.choice((number + 1, number - 1, -number, number * 2, number * 1000, third, rng.choice(EDGES)))


def _places(content: Any) -> Any:
    """All lists and dictionaries with the keys of their entries."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(entries):
        yield content, key
        yield from _places(value)


def damaged_png(rng: Random, data: bytes) -> bytes:
    """Changes a chunk, with the right checksum, removes or repeats it, or adds one with a bomb or with nonsense."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    index = rng.randrange(len(chunks))
    kind, content = chunks[index]
    match rng.randrange(6):
        case 0:
            size = [rng.choice((0, 1, 7, 20000, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
            rest = bytes([rng.choice((1, 2, 4, 8, 16, 3)), rng.randrange(8), rng.randrange(2), 0, rng.randrange(3)])
            chunks[0] = chunks[0][0], struct.pack(">II", *size) + rest
        case 1:
            del chunks[index]
        case 2:
            chunks.insert(rng.randrange(len(chunks)), (kind, content))
        case 3:
            bomb = zlib.compress(bytes(rng.choice((10, 80_000_000))))
            extra = rng.choice(
                ((b"zTXt", b"a\0\0" + bomb), (b"iCCP", b"a\0\0" + bomb), (b"iTXt", b"a\0\1\0\0\0" + bomb))
            )
            chunks.insert(rng.choice((1, len(chunks) - 1)), extra)
        case 4:
            kind = rng.choice(
                (b"tRNS", b"PLTE", b"eXIf", b"pHYs", b"gAMA", b"cHRM", b"acTL", b"fcTL", b"sRGB", b"sBIT")
            )
            chunks.insert(rng.choice((1, len(chunks) - 1)), (kind, rng.randbytes(rng.choice((0, 1, 3, 8, 26, 768)))))
        case _:
            chunks[index] = kind, damaged_bytes(rng, content)
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return data[:8] + b"".join(parts)


def damaged_jpeg(rng: Random, data: bytes) -> bytes:
    """Changes, removes or repeats a segment, with the right length."""
    segments, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        segments.append((data[place + 1], data[place + 4 : place + 2 + length]))
        place += 2 + length
    if not segments:
        return damaged_bytes(rng, data)
    index = rng.randrange(len(segments))
    marker, content = segments[index]
    match rng.randrange(4):
        case 0:
            del segments[index]
        case 1:
            segments.insert(rng.randrange(len(segments)), (marker, content))
        case 2:
            segments[index] = rng.choice((0xC0, 0xC2, 0xC4, 0xDB, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE)), content
        case _:
            segments[index] = marker, damaged_bytes(rng, content)[:65533]
    parts = [bytes([0xFF, m]) + (len(c) + 2).to_bytes(2, "big") + c for m, c in segments]
    return data[:2] + b"".join(parts) + data[place:]


def damaged_safetensors(rng: Random, data: bytes) -> bytes:
    """Changes the header of a .safetensors file, or the record of edgeseg in it, with the right lengths."""
    (length,) = struct.unpack("<Q", data[:8])
    header, tensors = data[8 : 8 + length].decode(), data[8 + length :]
    if rng.random() < 0.5:
        header = damaged_json(rng, header)
    else:
        content = json.loads(header)
        content["__metadata__"]["edgeseg"] = damaged_json(rng, content["__metadata__"]["edgeseg"])
        header = json.dumps(content)
    encoded = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded + tensors


def damaged_protobuf(rng: Random, data: bytes) -> bytes:
    """Changes, removes or repeats a field of a message or of a message in it, with the right lengths."""
    fields = _fields(data)
    if not fields:
        return damaged_bytes(rng, data)
    index = rng.randrange(len(fields))
    key, content = fields[index]
    if isinstance(content, bytes) and len(content) > 1 and rng.random() < 0.8 and _fields(content):
        fields[index] = key, damaged_protobuf(rng, content)
        return b"".join(map(_written, fields))
    match rng.randrange(5):
        case 0:
            del fields[index]
        case 1:
            fields.insert(rng.randrange(len(fields)), (key, content))
        case 2:
            fields[index] = (rng.choice((1, 2, 3, 4, 5, 7, 8, 9, 11, 14)) << 3) | (key & 7), content
        case 3 if isinstance(content, int):
            fields[index] = key, rng.choice(EDGES)
        case _:
            number = (content + 1) % 2**64 if isinstance(content, int) else 0
            fields[index] = key, damaged_bytes(rng, content) if isinstance(content, bytes) else number
    return b"".join(map(_written, fields))


def _fields(data: bytes) -> list[tuple[int, bytes | int]]:
    """The fields of a message with their keys; nothing for bytes that are no message."""
    found: list[tuple[int, bytes | int]] = []
    place = 0
    try:
        while place < len(data):
            key, place = _varint(data, place)
            kind = key & 7
            if key >> 3 == 0 or kind in (3, 4, 6, 7):
                return []
            if kind == 0:
                number, place = _varint(data, place)
                found.append((key, number))
                continue
            length = {1: 8, 5: 4}.get(kind, 0)
            if kind == 2:
                length, place = _varint(data, place)
            if place + length > len(data):
                return []
            found.append((key, data[place : place + length]))
            place += length
    except IndexError:
        return []
    return found


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while data[place] & 128:
        value |= (data[place] & 127) << shift
        place, shift = place + 1, shift + 7
    return value | data[place] << shift, place + 1


def _written(field: tuple[int, bytes | int]) -> bytes:
    key, content = field
    if isinstance(content, int):
        return _as_varint(key) + _as_varint(content)
    return _as_varint(key) + (_as_varint(len(content)) if key & 7 == 2 else b"") + content


def _as_varint(number: int) -> bytes:
    number, parts = number % 2**64, []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


Way = Callable[[Random, bytes], bytes]


def either(*ways: Way) -> Way:
    """A way to damage bytes that takes one of several ways."""
    return partial(_one_of, ways)


def _one_of(ways: Sequence[Way], rng: Random, data: bytes) -> bytes:
    return rng.choice(ways)(rng, data)
