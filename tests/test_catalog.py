"""The catalog: every entry loads, from synthetic files in the publishers' formats, over the network of this machine."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet50

import edgeseg
from edgeseg.cli import main
from edgeseg.config import FORMAT
from edgeseg.spec import ModelSpec, Preprocess
from edgeseg.storage.checkpoint import read_checkpoint_config
from edgeseg.weights.normalization import IMAGENET
from edgeseg.zoo import weights as catalog
from edgeseg.zoo.pretrained import local_file
from edgeseg.zoo.weights import ENCODER_WEIGHTS, WEIGHTS

from .conftest import TINY
from .hub_server import HubServer
from .test_original_onnx import difference, export, trained

REMOTE = [name for name, entry in WEIGHTS.items() if "software-dl.ti.com" in entry.addresses[0]]
COCO21 = "fpn_aspp_regnetx800mf_edgeailite.coco21"


def original_state(model: edgeseg.Pixel2Pixel) -> dict[str, Tensor]:
    """The weights under the original's keys; the fixtures of test_exactness say that these are the original's."""
    from edgeseg.weights.layouts import original

    ours = model.state_dict()
    encoder: Any = model.encoder
    blocks: dict[str, Any] = {"stem": encoder.stem, "trunk": list(encoder.trunk), "tasks": list(model.tasks)}
    state = {}
    for key, value in ours.items():
        if key.startswith("encoder."):
            state[
                key.replace("encoder.streams.0.", "encoder.features.").replace("encoder.trunk.", "encoder.features.")
            ] = value
    prefixes = [
        "aspp.conv1x1",
        *(f"aspp.aspp_bra{i}" for i in (1, 2, 3)),
        "aspp.aspp_out",
        "shortcut",
        "pred.0",
        "pred.1.0",
    ]
    prefixes += [f"rfblock{prefix[4:]}" for prefix in prefixes[:5]]
    prefixes += [f"fpn.{kind}.{i}" for kind in ("smooth_convs", "shortcuts") for i in range(1, 6)]
    prefixes += [f"unet.smooth_convs.{i}" for i in range(1, 6)]
    suffixes = [key.split(".", 3)[-1] for key in ours if key.startswith("decoders.")]
    tails = {".".join(key.split(".")[-n:]) for key in suffixes for n in (1, 2, 3)}
    for prefix in prefixes:
        for tail in tails:
            old = f"decoders.0.{prefix}.{tail}"
            (new,) = original.convert({old: torch.empty(0)}, **blocks)
            if new in ours:
                state[old] = ours[new]
    return state


@pytest.mark.parametrize("name", REMOTE)
def test_every_entry_loads(name: str, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of an entry is downloaded, converted once, and gives the network it was written from."""
    entry, architecture = WEIGHTS[name], name.partition(".")[0]
    assert all(address.startswith("https://") for address in entry.addresses)
    assert len(set(entry.addresses)) == len(entry.addresses) > 1
    assert urlsplit(entry.addresses[0]).path.endswith({"checkpoint": ".pth", "onnx": ".onnx"}[entry.format])
    classes = 7 if entry.tasks is None else entry.tasks["segmentation"].channels
    source = trained(edgeseg.create_model(architecture, num_classes=classes))
    path = tmp_path / Path(urlsplit(entry.addresses[-1]).path).name
    if entry.format == "onnx":
        export(source, path, shrunk="outby" in path.name)
    else:
        torch.save({"epoch": 60, "state_dict": {f"module.{k}": v for k, v in original_state(source).items()}}, path)
    hub.files[f"/{path.name}"] = path.read_bytes()
    monkeypatch.setitem(WEIGHTS, name, replace(entry, addresses=(f"{hub.url}/gone.pth", f"{hub.url}/{path.name}")))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = edgeseg.create_model(name)
    assert difference(source, model) < 1e-4
    assert model.preprocess == entry.preprocess
    assert entry.tasks is None or model.tasks == entry.tasks
    asked = len(hub.requests)
    assert difference(source, edgeseg.create_model(name)) < 1e-4
    assert len(hub.requests) == asked  # the converted file was kept


def test_rows() -> None:
    """What holds for all rows: names of the zoo, one default a network at most, a licence, a protocol."""
    for name, entry in WEIGHTS.items():
        architecture, _, tag = name.partition(".")
        assert edgeseg.is_model(architecture)
        assert tag.startswith(entry.labels or tag) or entry.format == "edgeseg"
        assert entry.license
        assert entry.protocol
        assert (entry.measured_miou is None) or entry.format == "edgeseg"
        defaults = [e.default for key, e in WEIGHTS.items() if key.startswith(f"{architecture}.")]
        assert sum(defaults) == 1, name


def test_published_figures(reference: object) -> None:
    """Addresses, sizes, classes and mIoU are those of the publisher's lists."""
    facts = {entry["file"]: entry for entry in reference("checkpoints.json")["segmentation"]}  # type: ignore[operator]
    for name in REMOTE:
        entry = WEIGHTS[name]
        for address in entry.addresses:
            fact = facts[address.rsplit("/", 1)[1]]
            known = [url.replace("http://", "https://") for url in (fact["url"], *fact["other_urls"])]
            assert address in known
            assert fact["factory"] == name.partition(".")[0]
            assert tuple(fact["input_hw"]) == entry.preprocess.size
            assert fact["num_classes"] == (entry.tasks["segmentation"].channels if entry.tasks else None)
            assert entry.published_miou == (fact["published_miou"] or fact["log_miou"])


def test_list_and_info() -> None:
    assert edgeseg.list_weights("*.coco21") == sorted(name for name in WEIGHTS if name.endswith(".coco21"))
    assert edgeseg.list_models("fpn_*", pretrained=True) == edgeseg.list_weights("fpn_*")
    assert edgeseg.weights_info(COCO21).published_miou == 61.15
    assert edgeseg.weights_info("fpn_aspp_regnetx800mf_edgeailite") is WEIGHTS[COCO21]
    with pytest.raises(ValueError, match="no weights 'mars'"):
        edgeseg.weights_info("fpn_aspp_regnetx800mf_edgeailite.mars")


def test_changed_publisher(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is no network of that name is an error that names it, and nothing is kept as converted."""
    hub.files["/net.pth"] = b"moved"
    monkeypatch.setitem(WEIGHTS, COCO21, replace(WEIGHTS[COCO21], addresses=(f"{hub.url}/net.pth",)))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"cannot read weights from .*net\.pth"):
            edgeseg.create_model(COCO21)


ADE20K32 = "fpn_aspp_regnetx400mf_edgeailite.ade20k32"


@pytest.fixture
def ade20k32(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> edgeseg.Pixel2Pixel:
    """The network whose weights the catalog has at two addresses of this machine: /old/net.onnx and /net.onnx."""
    source = trained(edgeseg.create_model(ADE20K32.partition(".")[0], num_classes=32))
    hub.files["/net.onnx"] = export(source, tmp_path / "served.onnx").read_bytes()
    addresses = (f"{hub.url}/old/net.onnx", f"{hub.url}/net.onnx")
    monkeypatch.setitem(WEIGHTS, ADE20K32, replace(WEIGHTS[ADE20K32], addresses=addresses))
    return source


def test_an_address_with_another_file(hub: HubServer, ade20k32: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    """What the first address has is no file, or that of another network: the next one is asked, and it is not kept."""
    other = export(trained(edgeseg.create_model("fpn", encoder=TINY, num_classes=32)), tmp_path / "other.onnx")
    graph = hub.files["/net.onnx"]
    for content in (b"<html>Sign in</html>", b"", other.read_bytes(), graph[: len(graph) // 2], graph[:20]):
        hub.files["/old/net.onnx"] = content
        cache = tmp_path / "hf-home/edgeseg" / ADE20K32
        for path in cache.glob("*"):
            path.unlink()
        assert difference(ade20k32, edgeseg.create_model(ADE20K32)) < 1e-4
        assert (cache / "net.onnx").read_bytes() == graph


def flip(path: Path) -> None:
    """Changes one bit of a file, in its last part, where the numbers are."""
    content = bytearray(path.read_bytes())
    content[-5] ^= 64
    path.write_bytes(content)


def test_flipped_bits(
    hub: HubServer, ade20k32: edgeseg.Pixel2Pixel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A converted file that has changed is converted again, and a download that has changed too is made again."""
    assert main(["weights", "verify", ADE20K32]) == 0
    cache = tmp_path / "hf-home/edgeseg" / ADE20K32
    (converted,) = cache.glob("*.safetensors")
    good = converted.read_bytes()
    for broken in ([converted], [converted, cache / "net.onnx"]):
        for path in broken:
            flip(path)
            assert main(["weights", "verify", ADE20K32]) == 1
            assert "broken  " in (out := capsys.readouterr().out)
            assert "has changed: sha256" in out
        asked = len(hub.paths("GET"))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert difference(ade20k32, edgeseg.create_model(ADE20K32)) < 1e-4
        assert bool(said) == (len(broken) == 2)
        assert len(hub.paths("GET")) == asked + 2 * (len(broken) - 1)
        assert converted.read_bytes() == good
        assert main(["weights", "verify", ADE20K32]) == 0


def test_verify_all(
    hub: HubServer,
    ade20k32: edgeseg.Pixel2Pixel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A row for each set of weights that is here, without any request."""
    torch.save(mobilenet_v2().state_dict(), tmp_path / "x.pth")
    hub.files["/x.pth"] = (tmp_path / "x.pth").read_bytes()
    entry = replace(ENCODER_WEIGHTS["mobilenetv2"], addresses=(f"{hub.url}/x.pth",))
    monkeypatch.setitem(ENCODER_WEIGHTS, "mobilenetv2", entry)
    edgeseg.create_model("fpn", encoder="mobilenetv2", encoder_weights="imagenet")
    edgeseg.create_model(ADE20K32)
    capsys.readouterr()
    hub.requests.clear()
    assert main(["weights", "verify", "--all"]) == 0
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    packaged = [name for name, entry in WEIGHTS.items() if entry.format == "edgeseg"]
    assert rows == dict.fromkeys([*packaged, ADE20K32, "mobilenetv2"], "intact")

    flip(tmp_path / "hf-home/edgeseg/encoders/x.safetensors")
    flip(tmp_path / "hf-home/edgeseg" / ADE20K32 / "net.onnx")
    assert main(["weights", "verify", "--all"]) == 1
    out = capsys.readouterr().out
    assert out.count("broken  ") == out.count("has changed: sha256") == 2
    assert hub.requests == []
    assert main(["weights", "verify"]) == 2
    assert "pass either names of weights or --all" in capsys.readouterr().err
    assert main(["weights", "info", ADE20K32]) == 0
    recorded = (tmp_path / "hf-home/edgeseg" / ADE20K32 / "net.onnx.sha256").read_text().strip()
    assert recorded in capsys.readouterr().out


def test_verify_all_of_the_cache(
    hub: HubServer, ade20k32: edgeseg.Pixel2Pixel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of other addresses are rows too, and nothing is downloaded in place of what is broken or has no record."""
    torch.save({"a": torch.ones(9)}, tmp_path / "mine.pth")
    hub.files["/mine.pth"] = (tmp_path / "mine.pth").read_bytes()
    path = local_file(f"{hub.url}/mine.pth")
    converted = tmp_path / "hf-home/edgeseg" / ADE20K32 / f"{ADE20K32}.{FORMAT}.safetensors"
    converted.parent.mkdir()
    converted.write_bytes(b"no weights")
    hub.requests.clear()
    for state in ("intact", "broken"):
        assert main(["weights", "verify", "--all"]) == 1
        rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
        assert rows[ADE20K32] == "broken"
        assert rows[f"addresses/{path.parent.name}/mine.pth"] == state
        flip(path)
    assert hub.requests == []


def test_verify_all_reads_files_without_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They may be anything, and one that cannot be read does not end the check of the others."""
    cache = tmp_path / "hf-home/edgeseg/addresses"
    cache.mkdir(parents=True)
    for name in ("a.onnx", "b.safetensors", "c.pth"):
        (cache / name).write_bytes(b"broken")
    (cache / "c.pth.sha256").write_bytes(b"\0garbage")
    torch.save({"a": torch.ones(9)}, cache / "d.pth")
    assert main(["weights", "verify", "--all"]) == 1
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    states = {name.removeprefix("addresses/"): state for name, state in rows.items() if name.startswith("addresses")}
    assert states == {"a.onnx": "broken", "b.safetensors": "broken", "c.pth": "broken", "d.pth": "intact"}


def test_one_failing_download_does_not_end_the_others(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = replace(WEIGHTS[ADE20K32], addresses=(f"{hub.url}/nothing.onnx",))
    monkeypatch.setitem(WEIGHTS, ADE20K32, entry)
    packaged = "unet_aspp_mobilenetv2_tv_edgeailite.camvid"
    assert main(["weights", "download", ADE20K32, packaged]) == 1
    out, err = capsys.readouterr()
    assert f"{packaged}: " in out
    assert f"edgeseg weights download: {ADE20K32}: " in err


# ImageNet weights of encoders


STD = torch.tensor(IMAGENET.std).view(1, 3, 1, 1)


def encoder_input(model: edgeseg.Pixel2Pixel) -> Tensor:
    with torch.inference_mode():
        return model.eval().encoder([torch.ones(1, 3, 64, 64)])[-1]


def test_imagenet_from_torchvision(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for encoder, source in (("mobilenetv2", mobilenet_v2()), ("resnet50", resnet50())):
        torch.save(source.state_dict(), tmp_path / "x.pth")
        hub.files[f"/{encoder}.pth"] = (tmp_path / "x.pth").read_bytes()
        entry = replace(ENCODER_WEIGHTS[encoder], addresses=(f"{hub.url}/{encoder}.pth",))
        monkeypatch.setitem(catalog.ENCODER_WEIGHTS, encoder, entry)
        model = edgeseg.create_model("fpn", encoder=encoder, encoder_weights="imagenet")
        stem = next(module for module in model.encoder.modules() if isinstance(module, nn.Conv2d))
        theirs = next(module for module in source.modules() if isinstance(module, nn.Conv2d))
        torch.testing.assert_close(stem.weight, theirs.weight * 64 / STD)  # normalized like ours
    kept = sorted(path.name for path in (tmp_path / "hf-home/edgeseg/encoders").glob("*.safetensors"))
    assert kept == ["mobilenetv2.safetensors", "resnet50.safetensors"]


def publish(hub: HubServer, repo: str, state: dict[str, Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in state.items()}, folder / "x.safetensors")
    hub.repos[repo] = {"model.safetensors": (folder / "x.safetensors").read_bytes()}


@pytest.mark.parametrize(
    ("encoder", "repo"),
    [
        ("regnetx400mf", "timm/regnetx_004.pycls_in1k"),
        ("mobilenetv2_1p4", "timm/mobilenetv2_140.ra_in1k"),
    ],
)
def test_imagenet_from_the_hub(
    encoder: str, repo: str, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeseg.weights.encoder.IMAGENET", Preprocess())  # so that nothing is folded
    source: Any = timm.create_model(repo.removeprefix("timm/").partition(".")[0]).eval()
    publish(hub, repo, source.state_dict(), tmp_path)
    model = edgeseg.create_model("fpn", encoder=encoder, encoder_weights="imagenet", activation="relu6")
    if encoder == "regnetx400mf":
        model = edgeseg.create_model("fpn", encoder=encoder, encoder_weights="imagenet")
    with torch.inference_mode():
        theirs = source.forward_features(torch.ones(1, 3, 64, 64))
    ours = encoder_input(model)
    if encoder == "regnetx400mf":
        torch.testing.assert_close(ours, theirs)
    else:
        assert ours.shape[1] == 448  # timm's features end behind a 1x1 that an encoder has no use for


def test_timm_by_its_name(hub: HubServer, tmp_path: Path) -> None:
    source: Any = timm.create_model(TINY)
    publish(hub, f"timm/{TINY}.mine", source.state_dict(), tmp_path)
    model = edgeseg.create_model("fpn", encoder=TINY, encoder_weights=f"timm/{TINY}.mine")
    stem = next(module for module in model.encoder.modules() if isinstance(module, nn.Conv2d))
    torch.testing.assert_close(stem.weight, source.conv_stem.weight * 64 / STD)


def test_imagenet_of_a_timm_encoder_asks_the_hub(hub: HubServer) -> None:
    with pytest.raises(FileNotFoundError, match=r"no repository timm/mobilenetv3_small_050\.lamb_in1k"):
        edgeseg.create_model("fpn", encoder="mobilenetv3_small_050", encoder_weights="imagenet")


def test_no_encoder_weights() -> None:
    with pytest.raises(
        ValueError, match="no ImageNet weights are known for resnet50_p5; the encoders that have some are mobilenetv2"
    ):
        edgeseg.create_model("deeplabv3plus_resnet50_p5_edgeailite", encoder_weights="imagenet")
    with pytest.raises(FileNotFoundError, match="no encoder weights at imagnet; expected a file, 'imagenet'"):
        edgeseg.create_model("fpn", encoder=TINY, encoder_weights="imagnet")
    assert all(name in ENCODER_WEIGHTS or name == "resnet50_p5" for name in edgeseg.networks.encoders.ENCODERS)


# The command line


def test_commands(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "fpn_aspp_regnetx400mf_edgeailite.ade20k32"
    path = export(trained(edgeseg.create_model(name.partition(".")[0], num_classes=32)), tmp_path / "net.onnx")
    hub.files["/net.onnx"] = path.read_bytes()
    monkeypatch.setitem(WEIGHTS, name, replace(WEIGHTS[name], addresses=(f"{hub.url}/net.onnx",)))

    assert main(["weights", "list", "*.coco21"]) == 0
    assert "61.15 % published" in capsys.readouterr().out
    assert main(["weights", "info", name]) == 0
    out = capsys.readouterr().out
    assert "51.03 % published" in out
    assert f"{hub.url}/net.onnx" in out
    assert "armchair" in out
    assert main(["weights", "download", "*regnetx400mf*"]) == 0
    assert f"{name}: {tmp_path}" in capsys.readouterr().out
    assert main(["weights", "verify", name, "fpn_*.camvid"]) == 0
    assert capsys.readouterr().out.count(" intact  sha256 ") == 2
    target = tmp_path / "mine.safetensors"
    command = ["weights", "convert", str(path), str(target), "--model", "fpn_aspp_regnetx400mf_edgeailite"]
    assert main([*command, "--num-classes", "32"]) == 0
    config = read_checkpoint_config(target)
    assert config is not None
    assert isinstance(config.spec, ModelSpec)
    assert config.tasks["segmentation"].channels == 32
    assert main(command) == 2
    assert "pass --num-classes 32" in capsys.readouterr().err
    assert not target.with_name("none.safetensors").exists()
    assert main([*command[:3], str(target.with_name("none.safetensors")), *command[4:], "--num-classes", "7"]) == 2
    assert "net.onnx has 32 classes, and --num-classes says 7" in capsys.readouterr().err
    before = target.read_bytes()
    assert main(["weights", "convert", str(target), str(target), *command[4:], "--num-classes", "32"]) == 2
    assert "SRC and DST are the same file" in capsys.readouterr().err
    assert target.read_bytes() == before
    assert main(["weights", "verify", "nothing.x"]) == 2
    assert main(["weights", "verify", "nothing.*"]) == 2
    assert "no weights match 'nothing.*'" in capsys.readouterr().err

    (tmp_path / "hf-home/edgeseg" / name / "net.onnx").write_bytes(b"tampered")
    capsys.readouterr()
    assert main(["weights", "verify", name, "fpn_*.camvid", "--json"]) == 1
    tampered, shipped = json.loads(capsys.readouterr().out)
    assert tampered["name"] == name
    assert tampered["sha256"] is None
    assert "has changed: sha256" in tampered["error"]
    assert shipped["sha256"] == WEIGHTS["fpn_aspp_mobilenetv2_tv_edgeailite.camvid"].sha256
    assert not shipped["error"]


@pytest.mark.parametrize("older", ["features.", ""])
def test_older_module_names(older: str, tmp_path: Path) -> None:
    """Checkpoints from before the encoder had a name of its own."""
    name = "fpn_aspp_regnetx400mf_edgeailite"
    source = trained(edgeseg.create_model(name))
    state = {key.replace("encoder.features.", older): value for key, value in original_state(source).items()}
    torch.save({"state_dict": state}, tmp_path / "old.pth")
    assert difference(source, edgeseg.create_model(name, checkpoint_path=tmp_path / "old.pth")) == 0
