"""The server of the documents under good and bad requests from several threads."""

from __future__ import annotations

import http.client
import io
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

import edgeseg

from .conftest import ROOT, TINY

pytest.importorskip("onnxscript", reason="needs onnxscript: pip install 'edgeseg[onnx]'")
SIZES = ((40, 60), (64, 64), (90, 50))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its host and port, and the file that it serves."""
    file = tmp_path_factory.mktemp("server") / "model.onnx"
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, num_classes=4).eval()
    model.configure(preprocess=edgeseg.Preprocess(size=(64, 64)))
    edgeseg.export_onnx(model, file, size=(64, 64), dynamic=(), output="small_logits")
    command = [sys.executable, str(ROOT / "docs/examples/serve.py"), str(file), "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield urlsplit(process.stdout.readline().strip()).netloc, file
    finally:
        process.kill()
        process.wait()


def photo(number: int) -> Image.Image:
    height, width = SIZES[number % len(SIZES)]
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(number: int) -> bytes:
    file = io.BytesIO()
    photo(number).save(file, "PNG")
    return file.getvalue()


def post(address: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request("POST", "/", body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def half(address: str, body: bytes) -> None:
    """Leaves in the middle of a request."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body[: len(body) // 2])


def request(number: int, address: str, expected: list[np.ndarray]) -> str:
    """Sends one request of a kind that depends on its number; returns what went wrong."""
    kind = Random(number).choice(["good", "good", "good", "cut", "noise", "empty", "method", "length", "large", "half"])
    body = png(number % len(expected))
    if kind == "good":
        status, answer = post(address, body)
        with Image.open(io.BytesIO(answer)) as labels:
            right = status == 200 and np.array_equal(np.asarray(labels), expected[number % len(expected)])
        return "" if right else f"{number}: wrong answer, {status}"
    if kind == "half":
        half(address, body)
        return ""
    if kind == "method":
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("DELETE", "/")
        status, wanted = connection.getresponse().status, 501
        connection.close()
    elif kind == "length":
        status, wanted = post(address, b"", **{"Content-Length": "-1"})[0], 413
    elif kind == "large":
        bomb = io.BytesIO()
        Image.new("1", (30_000, 1_000 if number % 2 else 13_000)).save(bomb, "PNG")
        status, wanted = post(address, bomb.getvalue())[0], 400
    else:
        damaged = {"cut": body[: len(body) // 2], "noise": Random(number).randbytes(1000), "empty": b""}
        status, wanted = post(address, damaged[kind])[0], 400
    return "" if status == wanted else f"{number}: {kind} gave {status}, not {wanted}"


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_good_answers_among_bad_requests(server: tuple[str, Path], count: int) -> None:
    address, file = server
    segmenter = edgeseg.load_segmenter(file)
    expected = [segmenter.predict(photo(number)) for number in range(6)]
    with ThreadPoolExecutor(8) as threads:
        wrong = list(filter(None, threads.map(lambda number: request(number, address, expected), range(count))))
    assert not wrong
