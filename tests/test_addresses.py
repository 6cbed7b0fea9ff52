"""Weights by their address, from a real server on loopback: what they start, where they lie, and what is refused."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import get_session
from onnx import helper
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

import edgeseg
from edgeseg.cli import main
from edgeseg.machine.download import download, is_address, public_address, record_file
from edgeseg.storage.checkpoint import read_checkpoint_config, read_weights
from edgeseg.zoo.pretrained import encoder_file, holds_encoder, local_file
from edgeseg.zoo.weights import ENCODER_WEIGHTS, WEIGHTS

from .conftest import SMALL_RUN, TINY
from .hub_server import HubServer

MOBILENET = "fpn_aspp_mobilenetv2_tv_edgeailite"
PAGE = b"<!doctype html><html><title>Sign in</title></html>"

KEPT = ["net.pth", "net.pth.sha256", "net.safetensors", "net.safetensors.sha256"]  # of the address .../net.pth


def cached(tmp_path: Path) -> list[str]:
    """The files in the cache, without locks and parts of files."""
    cache = tmp_path / "hf-home/edgeseg"
    paths = [path for path in cache.rglob("*") if path.is_file() and path.name[0] != "."]
    return sorted(str(path.relative_to(cache)) for path in paths)


def serve_weights(hub: HubServer, path: str, state: dict[str, Any], folder: Path) -> str:
    """Puts a pickled state dict on the server, and returns its address."""
    torch.save(state, folder / "served")
    hub.files[path] = (folder / "served").read_bytes()
    return f"{hub.url}{path}"


def serve_model(hub: HubServer, path: str, model: edgeseg.Pixel2Pixel, folder: Path, **notes: Any) -> str:
    """Puts a file of edgeseg on the server, and returns its address."""
    edgeseg.save_checkpoint(model, folder / "served.safetensors", **notes)
    hub.files[path] = (folder / "served.safetensors").read_bytes()
    return f"{hub.url}{path}"


def create(argument: str, address: str) -> edgeseg.Pixel2Pixel:
    """A network whose weights are given as one of the arguments that take an address."""
    options: dict[str, Any] = {argument: address}
    return edgeseg.create_model(MOBILENET, **options)


def same(model: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("text", ["https://x.org/a.pth", "http://x.org/a", "HTTPS://x.org/a", "ftp://x.org/a"])
def test_addresses_are_told_from_files(text: str) -> None:
    assert is_address(text)
    assert not is_address(f"./{text}")
    assert not is_address(Path(text))
    assert not is_address("hf-hub:me/lakes")


def test_public_address() -> None:
    assert public_address("https://me:secret@x.org:8443/a/b.pth?key=secret#top") == "https://x.org:8443/a/b.pth"


@pytest.mark.parametrize("host", ["ex\u2100mple.com", "[::1", "host:99999", "host:pass/word@x.org"])
@pytest.mark.parametrize("user", ["", "me:password@", "me:pass?word@", "me:pass/word@"])
def test_no_password_of_a_malformed_address(user: str, host: str) -> None:
    for call in (public_address, local_file):
        with pytest.raises(ValueError, match="is not an address: its host or port is malformed") as caught:
            call(f"https://{user}{host}/net.onnx?key=secret")
        assert not any(word in str(caught.value) for word in ("pass", "word", "secret"))
        assert caught.value.__suppress_context__


def test_encoder_by_address(hub: HubServer, tmp_path: Path) -> None:
    """A pickle is converted once; two files of one name do not meet."""
    sources = [mobilenet_v2(), mobilenet_v2()]
    urls = [serve_weights(hub, f"/{i}/net.pth", net.state_dict(), tmp_path) for i, net in enumerate(sources)]
    for _ in range(2):
        for url, source in zip(urls, sources, strict=True):
            torch.save(source.state_dict(), tmp_path / "net.pth")
            model = edgeseg.create_model(MOBILENET, encoder_weights=url)
            assert same(
                model.encoder,
                edgeseg.create_model(MOBILENET, encoder_weights=tmp_path / "net.pth").encoder.state_dict(),
            )
            assert model.config.notes == {"encoder": {"weights": url}}
    assert hub.paths("GET") == ["/0/net.pth", "/1/net.pth"]
    names = cached(tmp_path)
    assert [name.rpartition("/")[2] for name in names] == [
        "net.pth",
        "net.pth.sha256",
        "net.safetensors",
        "net.safetensors.sha256",
    ] * 2
    assert len({name.rpartition("/")[0] for name in names}) == 2
    assert all(name.startswith("addresses/") for name in names)


def test_whole_network_by_address(hub: HubServer, tiny: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    url = serve_model(hub, "/tiny.safetensors", tiny, tmp_path, license="MIT")
    model = edgeseg.create_model("fpn", checkpoint_path=url)
    assert same(model, tiny.state_dict())
    assert model.tasks == tiny.tasks
    assert model.config.notes == {"source": url, "license": "MIT"}
    url = serve_weights(hub, "/plain.pth", tiny.state_dict(), tmp_path)
    network: dict[str, Any] = {"encoder": TINY, "channels": 16}
    model = edgeseg.create_model("fpn", checkpoint_path=f"{url}?token=secret", num_classes=3, **network)
    assert same(model, tiny.state_dict())
    assert model.config.notes["source"] == url  # without the token
    with pytest.warns(UserWarning, match="(is|are) not loaded"):
        model = edgeseg.create_model("fpn", checkpoint_path=url, num_classes=5, **network)
    assert model.config.notes["source"] == url


def test_safetensors_without_a_suffix(hub: HubServer, tiny: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    """Download links often have none; the content says what it is."""
    address = serve_model(hub, "/download", tiny, tmp_path)
    model = edgeseg.create_model(tiny.name, checkpoint_path=address)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in tiny.state_dict().items())


@pytest.mark.parametrize("name", ["tiny.safetensors", "download", "tiny.bin"])
def test_encoder_from_a_network_by_address(
    name: str, hub: HubServer, tiny: edgeseg.Pixel2Pixel, tmp_path: Path
) -> None:
    """The licence and the normalization that the file states go along, whatever the file is called."""
    tiny.configure(preprocess=replace(tiny.preprocess, mean=(10.0, 20.0, 30.0), std=(40.0, 50.0, 60.0)))
    url = serve_model(hub, f"/{name}", tiny, tmp_path, license="MIT", source="elsewhere")
    model = edgeseg.create_model("unet", encoder=TINY, encoder_weights=url)
    expected = edgeseg.create_model("unet", encoder=TINY, encoder_weights=tmp_path / "served.safetensors")
    assert same(model.encoder, expected.encoder.state_dict())
    assert not same(model.encoder, tiny.encoder.state_dict())  # another normalization was folded in
    assert model.config.notes == {"encoder": {"weights": url, "license": "MIT"}}


def test_addresses_of_the_catalog(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that the catalog lists means the catalog's weights: their file, hash, classes and licence."""
    url = serve_weights(hub, "/net.pth", mobilenet_v2().state_dict(), tmp_path)
    entry = replace(ENCODER_WEIGHTS["mobilenetv2"], addresses=(f"{hub.url}/gone.pth", url))
    monkeypatch.setitem(ENCODER_WEIGHTS, "mobilenetv2", entry)
    named = edgeseg.create_model(MOBILENET, encoder_weights="imagenet")
    asked = len(hub.requests)
    model = edgeseg.create_model(MOBILENET, encoder_weights=url)
    assert len(hub.requests) == asked
    assert same(model.encoder, named.encoder.state_dict())
    assert model.config.notes == named.config.notes
    assert model.config.notes["encoder"]["license"] == "BSD-3-Clause (torchvision)"
    assert cached(tmp_path) == [f"encoders/{each}" for each in KEPT]

    name = f"{MOBILENET}.ade20k32"
    url = serve_weights(hub, "/ti.pth", edgeseg.create_model(MOBILENET, num_classes=32).state_dict(), tmp_path)
    monkeypatch.setitem(WEIGHTS, name, replace(WEIGHTS[name], addresses=(url,), sha256="0" * 64))
    with pytest.raises(ValueError, match=r"ti\.pth is not the file it should be: .*expected 0000"):
        edgeseg.create_model(MOBILENET, checkpoint_path=url)
    monkeypatch.setitem(WEIGHTS, name, replace(WEIGHTS[name], sha256=None))
    model = edgeseg.create_model(MOBILENET, checkpoint_path=url)
    assert model.tasks == edgeseg.create_model(name).tasks
    assert model.config.notes["weights"] == name
    assert model.config.notes["license"] == WEIGHTS[name].license
    assert model.config.notes["source"] == url
    assert hub.paths("GET").count("/ti.pth") == 2  # the one that was refused, and one for both models


@pytest.mark.parametrize("content", [PAGE, b""], ids=["page", "empty"])
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net.onnx"])
def test_what_is_not_weights_is_not_kept(content: bytes, name: str, hub: HubServer, tmp_path: Path) -> None:
    """The error names the address, and the next call asks again."""
    url = f"{hub.url}/{name}"
    hub.files[f"/{name}"] = content
    for argument in ("checkpoint_path", "encoder_weights"):
        before = len(hub.paths("GET"))
        with pytest.raises(ValueError, match=f"{url} is not the file it should be: .*; it was removed$"):
            create(argument, url)
        assert len(hub.paths("GET")) > before
        assert cached(tmp_path) == []


def test_a_page_in_place_of_the_catalog(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["/net.pyth"] = PAGE
    entry = replace(ENCODER_WEIGHTS["mobilenetv2"], addresses=(f"{hub.url}/net.pyth",))
    monkeypatch.setitem(ENCODER_WEIGHTS, "mobilenetv2", entry)
    with pytest.raises(ValueError, match=r"net\.pyth is not the file it should be"):
        edgeseg.create_model(MOBILENET, encoder_weights="imagenet")
    serve_weights(hub, "/net.pyth", mobilenet_v2().state_dict(), tmp_path)
    edgeseg.create_model(MOBILENET, encoder_weights="imagenet")


def test_pickled_code_of_an_address_is_not_run(hub: HubServer, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "pwned",)

    url = serve_weights(hub, "/net.pth", {"state_dict": Payload()}, tmp_path)
    for argument in ("checkpoint_path", "encoder_weights"):
        with pytest.raises(ValueError, match="is not the file it should be: cannot read weights"):
            create(argument, url)
    assert not (tmp_path / "pwned").exists()


def test_refused_addresses(hub: HubServer) -> None:
    for address in ("http://example.com/net.pth", "ftp://example.com/net.pth", "file:///etc/hostname"):
        for argument in ("checkpoint_path", "encoder_weights"):
            with pytest.raises(ValueError, match="https only"):
                create(argument, address)
    with pytest.raises(ValueError, match="not the address of a file"):
        local_file(f"{hub.url}/")
    with pytest.raises(OSError, match=f"{hub.url}/missing.pth.*404"):
        local_file(f"{hub.url}/missing.pth")
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["out"])], "net", [], [])
    hub.files["/net.onnx"] = helper.make_model(graph).SerializeToString()
    with pytest.raises(ValueError, match="is an ONNX file, which has a whole network"):
        edgeseg.create_model("fpn", encoder=TINY, encoder_weights=f"{hub.url}/net.onnx")


def test_what_a_file_holds(hub: HubServer, tiny: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    """Judged by the decoders in it; files of registered builders may call their tensors anything."""
    encoder = serve_weights(hub, "/encoder.pth", mobilenet_v2().state_dict(), tmp_path)
    assert holds_encoder(encoder, MOBILENET)
    assert holds_encoder(tmp_path / "served", MOBILENET)
    assert holds_encoder(encoder, "unet_edgeailite_pixel2pixel_aspp_mobilenetv2_tv")  # an alias
    assert not holds_encoder(encoder, "erfnet")
    assert not holds_encoder(serve_model(hub, "/tiny.safetensors", tiny, tmp_path), "fpn")
    theirs = {"encoder.features.0.0.weight": torch.zeros(1), "decoders.0.pred.1.0.weight": torch.zeros(1)}
    assert not holds_encoder(serve_weights(hub, "/ti.pth", {"state_dict": theirs}, tmp_path), MOBILENET)
    wrapped = {f"module.{key}": value for key, value in theirs.items()}
    assert not holds_encoder(serve_weights(hub, "/parallel.pth", {"state_dict": wrapped}, tmp_path), MOBILENET)
    espnet = {"base_net.level1.conv.weight": torch.zeros(1), "bu_dec_l1.merge_layer.3.weight": torch.zeros(1)}
    assert not holds_encoder(serve_weights(hub, "/espnet.pth", espnet, tmp_path), "espnetv2_s2p0")


# What vouches for a file


def test_digits_in_a_name_do_not_replace_the_reader(hub: HubServer, tmp_path: Path) -> None:
    name = f"net-{hashlib.sha256(PAGE).hexdigest()[:8]}.pth"
    hub.files[f"/{name}"] = PAGE
    with pytest.raises(ValueError, match="it is a page for a browser"):
        local_file(f"{hub.url}/{name}")
    assert cached(tmp_path) == []


def test_a_date_is_no_hash(hub: HubServer, tmp_path: Path) -> None:
    local_file(serve_weights(hub, "/unet-20210405.pth", mobilenet_v2().state_dict(), tmp_path))


def test_a_damaged_record(hub: HubServer, tiny: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    """The file is kept while no other was accepted, and the record is that of the file again."""
    url = serve_model(hub, "/tiny.safetensors", tiny, tmp_path)
    path = local_file(url)
    content, record = path.read_bytes(), record_file(path)
    good = record.read_text()
    record.write_text("0" * 8 + good[8:])
    hub.files["/tiny.safetensors"] = PAGE
    with pytest.warns(UserWarning, match="has changed"), pytest.raises(ValueError, match="not the file it should be"):
        local_file(url)
    assert path.read_bytes() == content
    hub.files["/tiny.safetensors"] = content
    with pytest.warns(UserWarning, match="has changed"):
        local_file(url)
    assert record.read_text() == good
    hub.requests.clear()
    assert local_file(url) == path
    assert hub.requests == []


def test_a_clock_that_was_set_back(hub: HubServer, tmp_path: Path) -> None:
    """A file is converted again if its source is another one, whatever the times of the files are."""
    url = serve_weights(hub, "/net.pth", mobilenet_v2().state_dict(), tmp_path)
    converted = encoder_file(url, None)
    source = converted.with_suffix(".pth")
    os.utime(record_file(source), (2e9, 2e9))
    before = converted.stat().st_mtime_ns
    assert encoder_file(url, None).stat().st_mtime_ns == before
    source.unlink()
    record_file(source).unlink()
    other = mobilenet_v2().state_dict()
    serve_weights(hub, "/net.pth", other, tmp_path)
    os.utime(converted, (2e9, 2e9))
    found = read_weights(encoder_file(url, None))
    assert all(torch.equal(found[key], value) for key, value in other.items())


def test_cookies_are_not_kept(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeseg.machine.transfer.time", SimpleNamespace(sleep=lambda _: None))
    hub.files["/net.onnx"] = b"network"
    hub.statuses["/net.onnx"] = [(500, {"Set-Cookie": "tracker=1"})]
    before = dict(get_session().cookies)
    download(f"{hub.url}/net.onnx", tmp_path)
    assert dict(get_session().cookies) == before


def test_no_way_back_to_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redirects from this machine over another one do not lead to this machine again."""
    ways = {"127.0.0.1": "https://example.com/net.onnx", "example.com": "http://localhost/net.onnx"}
    asked = []

    def answer(request: Any) -> Any:
        asked.append(request.url.host)
        return client.Response(302, headers={"Location": ways[request.url.host]})

    client: Any = import_module(type(get_session()).__module__.partition(".")[0])
    session = client.Client(transport=client.MockTransport(answer))
    monkeypatch.setattr("huggingface_hub.get_session", lambda: session)
    with pytest.raises(ValueError, match=r"refused http://localhost/net\.onnx"):
        download("http://127.0.0.1/net.onnx", tmp_path)
    assert asked == ["127.0.0.1", "example.com"]


# The command line


def test_checkpoint_by_address(
    hub: HubServer,
    tiny: edgeseg.Pixel2Pixel,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = serve_model(hub, "/tiny.safetensors", tiny, tmp_path, license="MIT")
    assert main(["predict", str(photo), "-o", str(tmp_path / "out"), "--checkpoint", url]) == 0
    assert main(["export", "-o", str(tmp_path / "tiny.onnx"), "--checkpoint", url]) == 0
    capsys.readouterr()
    for name in (url, str(tmp_path / "tiny.onnx")):
        assert main(["info", name]) == 0
        assert "MIT" in capsys.readouterr().out
    hub.files["/page.safetensors"] = PAGE
    assert (
        main(["predict", str(photo), "-o", str(tmp_path / "out"), "--checkpoint", f"{hub.url}/page.safetensors"]) == 2
    )
    assert f"{hub.url}/page.safetensors is not the file it should be" in capsys.readouterr().err


def test_pretrained_decides_by_the_file(
    hub: HubServer, camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An encoder alone starts the encoder, a network starts all: the same run as by the options of Python's names."""
    net = mobilenet_v2()
    encoder = serve_weights(hub, "/encoder.pth", net.state_dict(), tmp_path)
    whole = serve_model(hub, "/whole.safetensors", edgeseg.create_model(MOBILENET, num_classes=11), tmp_path)
    sizes = [*SMALL_RUN, "--epochs", "1"]
    call = ["train", "--dataset", "camvid", "--data-path", str(camvid), "--model", MOBILENET, *sizes]
    call += ["--val-split", "none", "--class-weights", "none", "--lr", "0", "--freeze-bn"]  # so that nothing is learned

    def trained(*options: str) -> dict[str, Tensor]:
        assert main([*call, *options, "--overwrite", "-o", str(tmp_path / "run")]) == 0
        return read_weights(tmp_path / "run/last.safetensors")

    line = "{} has weights of an encoder alone: the decoders start untrained"
    torch.save(net.state_dict(), tmp_path / "encoder.pth")
    by_address = trained("--pretrained", encoder)
    assert line.format(encoder) in capsys.readouterr().out
    config = read_checkpoint_config(tmp_path / "run/last.safetensors")
    assert config is not None
    assert config.notes["encoder"] == {"weights": encoder}
    by_file = trained("--pretrained", str(tmp_path / "encoder.pth"))
    assert line.format(tmp_path / "encoder.pth") in capsys.readouterr().out
    by_name = trained("--encoder-weights", encoder)
    assert "untrained" not in capsys.readouterr().out
    model = edgeseg.create_model(MOBILENET, num_classes=11, encoder_weights=encoder)
    for key, value in model.encoder.state_dict().items():
        assert all(
            torch.allclose(run[f"encoder.{key}"].float(), value.float()) for run in (by_address, by_file, by_name)
        ), key

    start = edgeseg.create_model(MOBILENET, num_classes=11, checkpoint_path=whole)
    by_address = trained("--pretrained", whole)
    assert "untrained" not in capsys.readouterr().out
    assert all(torch.allclose(by_address[key].float(), value.float()) for key, value in start.state_dict().items())
    shipped = trained("--pretrained", f"{MOBILENET}.camvid")
    start = edgeseg.create_model(f"{MOBILENET}.camvid")
    assert all(torch.allclose(shipped[key].float(), value.float()) for key, value in start.state_dict().items())
    assert main([*call, "--pretrained", encoder, "--encoder-weights", encoder, "-o", str(tmp_path / "two")]) == 2
    assert "--pretrained has weights of an encoder, and so has --encoder-weights" in capsys.readouterr().err
