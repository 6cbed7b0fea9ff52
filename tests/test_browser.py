"""The page in a real browser, with the real onnxruntime-web, against the labels of Python."""

from __future__ import annotations

import base64
import functools
import io
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgeseg
from edgeseg.data import Streets
from edgeseg.deploy.web import LIBRARY, copy_runtime, export_web

from .browser import Browser, Page, find_chromium

PHOTOS = 3
READY, STORED = "Ready", "From now on"


class Handler(SimpleHTTPRequestHandler):
    """A server of static files that pages of other servers may use, as jsDelivr is."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Nothing is printed where a page was closed before it had everything."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of the folder; it is gone after the block."""
    server = Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def program() -> str:
    path = find_chromium()
    if path is None:
        pytest.skip("needs Chromium, in which the page is opened (Debian's package chromium)")
    return path


@pytest.fixture(scope="module")
def browser(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    running = Browser(program, tmp_path_factory.mktemp("browser") / "profile")
    yield running
    running.close()


@pytest.fixture(scope="module")
def library(program: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """onnxruntime-web, from npm's registry."""
    folder = tmp_path_factory.mktemp("library") / LIBRARY
    try:
        copy_runtime(folder)
    except OSError as error:
        pytest.skip(f"needs onnxruntime-web from npm's registry, which the page runs networks with: {error}")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, streets = tmp_path_factory.mktemp("photos"), Streets("test", (270, 400), length=4 * PHOTOS)
    for index in range(PHOTOS):
        Image.fromarray(streets[4 * index][0].permute(1, 2, 0).numpy()).save(folder / f"street{index}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def pages(library: Path, photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per precision, with onnxruntime-web, of trained weights."""
    folder = tmp_path_factory.mktemp("pages")
    model = edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite", pretrained=True).eval()
    export_web(model, folder / "float32", size=(192, 288))
    export_web(model, folder / "int8", size=(192, 288), precision="int8", images=photos)
    for page in folder.iterdir():
        shutil.copytree(library, page / LIBRARY)
        load_library_from(page, f"{LIBRARY}/")  # as with `bundle`
    return {page.name: page for page in folder.iterdir()}


def load_library_from(page: Path, address: str) -> None:
    facts = json.loads((page / "model.json").read_text())
    facts["runtime"]["address"] = address
    (page / "model.json").write_text(json.dumps(facts))


def shown(page: Page) -> np.ndarray:
    """The colours over the photo, uint8 [H, W, 3]."""
    content = base64.b64decode(page.evaluate("document.getElementById('classes').toDataURL()").partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_classes_are_those_of_python(
    precision: str, pages: dict[str, Path], photos: list[Path], browser: Browser
) -> None:
    segmenter = edgeseg.load_segmenter(pages[precision] / "model.onnx")
    palette = np.array(next(iter(segmenter.tasks.values())).palette, np.uint8)
    assert len(np.unique(palette, axis=0)) == len(palette)
    with served(pages[precision]) as address:
        page = browser.open(address)
        page.wait_for("status", READY)
        for photo in photos:
            page.choose("file", photo)
            text = page.wait_for("status", f"{photo.name}: 400 x 270 pixels; the network took")
            assert "ms on the processor (WebAssembly" in text
            labels = segmenter.predict(photo)
            assert len(np.unique(labels)) > 3
            same = (shown(page) == palette[labels]).all(axis=-1).mean()
            print(f"{precision} {photo.name}: {100 * same:.3f} % of the pixels are equal; {text}")
            assert same >= 0.999
            legend = page.text("legend").split("\n")
            assert legend[0] == segmenter.tasks["segmentation"].classes[np.bincount(labels.ravel()).argmax()]
        page.close()


def test_without_a_connection(pages: dict[str, Path], photos: list[Path], browser: Browser) -> None:
    """After it was opened once the page opens without its server, and then computes in threads."""
    with served(pages["float32"]) as address:
        page = browser.open(address)
        page.wait_for("offline", STORED)
        assert page.evaluate("crossOriginIsolated") is False
    for _ in range(2):
        page.go(address)
        page.wait_for("status", READY)
        page.choose("file", photos[0])
        page.wait_for("status", "the network took")
        assert page.evaluate("crossOriginIsolated") is True
        page.wait_for("offline", STORED)
    page.close()


def test_library_from_another_server(
    pages: dict[str, Path], library: Path, photos: list[Path], browser: Browser, tmp_path: Path
) -> None:
    """With threads and without a connection too."""
    shutil.copytree(pages["int8"], tmp_path / "page", ignore=shutil.ignore_patterns(LIBRARY))
    with served(library) as other, served(tmp_path / "page") as address:
        load_library_from(tmp_path / "page", other)
        page = browser.open(address)
        page.wait_for("offline", STORED)
        page.go(address)
        page.wait_for("status", READY)
        assert page.evaluate("crossOriginIsolated") is True
    page.go(address)
    page.wait_for("status", READY)
    page.choose("file", photos[0])
    page.wait_for("status", "the network took")
    page.close()


def test_by_keyboard_and_by_pointer(pages: dict[str, Path], photos: list[Path], browser: Browser) -> None:
    segmenter = edgeseg.load_segmenter(pages["float32"] / "model.onnx")
    labels, classes = segmenter.predict(photos[0]), segmenter.tasks["segmentation"].classes
    with served(pages["float32"]) as address:
        page = browser.open(address)
        page.wait_for("status", READY)
        page.choose("file", photos[0])
        page.wait_for("status", "the network took")
        page.evaluate("document.getElementById('file').focus()")
        reached = []
        while "view" not in reached:
            page.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
            assert len(reached) < 6, reached
        assert {"camera", "opacity"} <= set(reached)
        page.press("ArrowRight")
        page.wait_for("pointed", f"{classes[labels[135, 200]]} at column 200, row 135")
        page.press("ArrowUp")
        page.wait_for("pointed", f"{classes[labels[127, 200]]} at column 200, row 127")
        frame = "document.getElementById('photo').getBoundingClientRect()"
        x, y, width, height = (page.evaluate(f"{frame}.{side}") for side in ("x", "y", "width", "height"))
        place = {"x": x + width * 100.5 / 400, "y": y + height * 240.5 / 270}
        page.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
        page.wait_for("pointed", f"{classes[labels[240, 100]]} at column 100, row 240")
        page.evaluate("const o = document.getElementById('opacity'); o.value = 25; o.dispatchEvent(new Event('input'))")
        assert page.evaluate("document.getElementById('classes').style.opacity") == "0.25"
        tree = page.call("Accessibility.getFullAXTree")["nodes"]
        named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]}
        assert ("slider", "Opacity of the classes") in named
        assert ("button", "Use the camera") in named
        page.call("Emulation.setDeviceMetricsOverride", width=340, height=700, deviceScaleFactor=1, mobile=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 340
        page.close()


def test_dropped_photo_and_camera(pages: dict[str, Path], photos: list[Path], browser: Browser) -> None:
    with served(pages["int8"]) as address:
        page = browser.open(address)
        page.wait_for("status", READY)
        content = base64.b64encode(photos[1].read_bytes()).decode()
        page.evaluate(f"""(async () => {{
            const blob = await (await fetch("data:image/png;base64,{content}")).blob();
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([blob], "dropped.png"));
            document.body.dispatchEvent(new DragEvent("drop", {{ dataTransfer, bubbles: true }}));
        }})()""")
        page.wait_for("status", "dropped.png: 400 x 270 pixels")
        page.evaluate("document.getElementById('camera').click()")
        page.wait_for("status", "Camera: 640 x 480 pixels; the network took")  # Chromium's test picture
        assert page.text("camera") == "Stop the camera"
        page.evaluate("document.getElementById('camera').click()")
        page.wait_for("camera", "Use the camera")
        page.choose("file", photos[0])
        page.wait_for("status", photos[0].name)
        page.close()


def test_what_is_wrong_is_said(pages: dict[str, Path], photos: list[Path], browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    with served(pages["float32"]) as address:
        page = browser.open(address)
        page.wait_for("status", READY)
        page.choose("file", tmp_path / "broken.jpg")
        page.wait_for("problem", "broken.jpg is not a photo that this browser can decode")
        page.choose("file", photos[0])
        page.wait_for("status", f"{photos[0].name}: ")
        assert page.text("problem") == ""
        page.close()
    for name, words in (
        ("model.onnx", "model.onnx is missing (404): upload the whole folder"),
        ("model.json", "model.json is missing (404)"),
        ("ort/ort.wasm.min.mjs", "ort/ort.wasm.min.mjs is missing (404)"),
    ):
        shutil.copytree(pages["float32"], tmp_path / "page")
        (tmp_path / "page" / name).unlink()
        with served(tmp_path / "page") as address:
            page = browser.open(address)
            page.wait_for("problem", words)
            page.close()
        shutil.rmtree(tmp_path / "page")


def test_changed_library_is_refused(pages: dict[str, Path], browser: Browser, tmp_path: Path) -> None:
    shutil.copytree(pages["int8"], tmp_path / "page")
    with (tmp_path / "page/ort/ort.wasm.min.mjs").open("a") as file:
        file.write("\n")
    with served(tmp_path / "page") as address:
        page = browser.open(address)
        page.wait_for("problem", "ort.wasm.min.mjs is not the file that this page was made for")
        page.close()


def test_page_from_the_file_system(pages: dict[str, Path], browser: Browser) -> None:
    page = browser.open((pages["float32"] / "index.html").as_uri())
    page.wait_for("problem", "This page has not started. It does not start from the file system")
    page.close()


def test_without_webassembly(pages: dict[str, Path], browser: Browser) -> None:
    with served(pages["float32"]) as address:
        page = browser.open("about:blank")
        page.call("Page.addScriptToEvaluateOnNewDocument", source="delete window.WebAssembly")
        page.go(address)
        page.wait_for("problem", "This browser has no WebAssembly")
        page.close()
