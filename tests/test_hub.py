"""Models as folders and on the hub: saved, pushed, pulled and refused, through the real client to a hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, constants, hf_hub_download

import edgeseg
from edgeseg import ModelConfig, Preprocess, Task
from edgeseg.cli import main
from edgeseg.machine.download import fetch
from edgeseg.machine.transfer import http_error

from .conftest import TINY
from .hub_server import COMMIT, HubServer

TASK = Task("segmentation", 2, classes=("land", "water"), palette=((9, 8, 7), (0, 0, 255)))


@pytest.fixture
def model() -> edgeseg.Pixel2Pixel:
    """A free combination with everything that a configuration can hold."""
    made = edgeseg.create_model("fpn", encoder=TINY, channels=16, in_channels=(3, 3), tasks={"water": TASK}).eval()
    made.configure(preprocess=Preprocess(size=(64, 96), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), channel_order="bgr"))
    return made


def same(a: edgeseg.Pixel2Pixel, b: edgeseg.Pixel2Pixel) -> bool:
    """Equal outputs, tasks and preprocessing."""
    images = [torch.randn(1, channels, 64, 96) for channels in a.in_channels]
    with torch.inference_mode():
        ours, theirs = a.eval()(*images), b.eval()(*images)
    equal = all(torch.equal(ours[name], theirs[name]) for name in ours)
    return equal and a.tasks == b.tasks and a.preprocess == b.preprocess and a.name == b.name


def test_folder_round_trip(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert same(model, edgeseg.create_model(f"local-dir:{tmp_path / 'm'}"))
    # The weights file alone rebuilds it too.
    assert same(model, edgeseg.create_model("fpn", checkpoint_path=tmp_path / "m/model.safetensors"))


def test_zoo_name_round_trip(tmp_path: Path) -> None:
    pretrained = edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite.camvid")
    pretrained.save_pretrained(tmp_path)
    assert same(pretrained, edgeseg.create_model(f"local-dir:{tmp_path}"))
    with pytest.warns(UserWarning, match="1 tensor is not loaded"):
        edgeseg.create_model(f"local-dir:{tmp_path}", num_classes=3)


def test_in_another_process(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    images = [torch.randn(1, channels, 64, 96) for channels in model.in_channels]
    torch.save(images, tmp_path / "images.pt")
    code = (
        "import sys, torch, edgeseg\n"
        "model = edgeseg.create_model('local-dir:m').eval()\n"
        "torch.save(model(*torch.load('images.pt'))['water'].detach(), 'logits.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), model(*images)["water"].detach(), rtol=0, atol=1e-6)


def test_card(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, license="mit", dataset="Lake Set", metrics={"mean_iou": 71.5}, description="Lakes.")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == "edgeseg"
    assert data.pipeline_tag == "image-segmentation"
    assert data.license == "mit"
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("Lake Set", "mean_iou", 71.5)
    assert json.loads((tmp_path / "config.json").read_text())["notes"]["metrics"] == {"mean_iou": 71.5}
    with pytest.raises(ValueError, match="metrics need the dataset"):
        model.save_pretrained(tmp_path, metrics={"mean_iou": 71.5})


def test_registered_builder(tmp_path: Path) -> None:
    @edgeseg.register_model("lake_net")
    def lake_net(config: ModelConfig, *, channels: int = 8) -> edgeseg.Pixel2Pixel:
        parts = edgeseg.create_model("fpn", encoder=TINY, channels=channels, tasks=config.tasks)
        return edgeseg.Pixel2Pixel(parts.encoder, dict(parts.decoders.items()), config)

    built = edgeseg.create_model("lake_net", num_classes=4, channels=12)
    built.save_pretrained(tmp_path)
    assert same(built, edgeseg.create_model(f"local-dir:{tmp_path}"))


def change(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.update(values)


def nested(levels: int) -> dict[str, Any]:
    return {"x": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (change(format=3), r"has format 3, and this edgeseg reads 1 to 2"),
        (change(format="x"), "has format .x., and this edgeseg reads"),
        (change(plugin="os.system"), r"unknown keys 'plugin'"),
        (lambda config: config.pop("tasks"), r"missing keys tasks"),
        (lambda config: config["spec"].update(script="x"), r"ModelSpec has unknown keys 'script'"),
        (lambda config: config["spec"].pop("encoder"), r"ModelSpec has .*missing keys encoder"),
        (lambda config: config["spec"].update(channels="16"), r"ModelSpec.channels is an integer, got '16'"),
        (lambda config: config["spec"].update(decoder="../../x"), "no decoder named"),
        (lambda config: config["spec"].update(encoder="hf-hub:me/evil"), "no encoder named"),
        (lambda config: config["tasks"]["water"].update(kind="exec"), "unknown task kind"),
        (change(inputs={"image": {"channels": "3"}}), "Input.channels is an integer, got '3'"),
        (change(inputs={"image": {"kind": "radar"}}), "Input.kind is one of image, flow; got 'radar'"),
        (change(preprocess={"size": "abc"}), "Preprocess.size is 2 values, got 'abc'"),
        (change(preprocess={"mean": ["x"]}), r"Preprocess.mean\[0\] is a number, got 'x'"),
        (change(preprocess={"std": [0]}), "Preprocess.std .*above 0"),
        (change(preprocess={"std": [1e-300]}), "Preprocess.std must be 0.001 to"),
        (change(preprocess={"mean": [10**400]}), r"Preprocess.mean\[0\] is a finite number"),
        (
            change(preprocess={"mean": [1, 2]}),
            "'flow' has 3 channels, and mean and std .* have 2 and 1",
        ),
        (change(preprocess={"size": [10**6, 10**6]}), "Preprocess.size must be at most"),
        (lambda config: config["spec"].update(dilations=[1, 2, 10**6]), "ModelSpec.dilations must be at most"),
        (change(name="\x1b[31m"), "ModelConfig.name is a name without control characters"),
        (change(notes=nested(500)), "ModelConfig.notes must be at most 20 levels deep"),
        (
            lambda config: config["spec"].update(channels=10**6),
            "describes a larger network than .* values, .* in the file",
        ),
        (lambda config: config["spec"].update(channels=2**62), r"config\.json: "),
        (lambda config: config["spec"].update(encoder="vit_giant_patch14_224"), r"config\.json: "),
        (lambda config: config["spec"].update(encoder="convnext_xxlarge"), r"config\.json"),
        (
            change(tasks={f"task{i}": {"channels": 2} for i in range(3000)}),
            "tasks must be at most 64 with the inputs",
        ),
        (change(tasks={}), "tasks has at least one task"),
        (change(name="no_such_model", spec=None), "no model named 'no_such_model'"),
    ],
)
def test_damaged_config(
    damage: Callable[[dict[str, Any]], None], problem: str, model: edgeseg.Pixel2Pixel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    damage(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=problem):
        edgeseg.create_model(f"local-dir:{tmp_path}")


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        edgeseg.create_model(f"local-dir:{tmp_path / 'none'}")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        edgeseg.create_model(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    with pytest.raises(ValueError, match="not the configuration of an edgeseg model"):
        edgeseg.create_model(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        edgeseg.create_model(f"local-dir:{tmp_path}")


def test_overrides_are_refused(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="drop channels"):
        edgeseg.create_model(f"local-dir:{tmp_path}", channels=8)
    with pytest.raises(ValueError, match="not both"):
        edgeseg.create_model(f"local-dir:{tmp_path}", checkpoint_path=tmp_path / "model.safetensors")


def push(model: edgeseg.Pixel2Pixel, **options: Any) -> str:
    return model.push_to_hub("me/lakes", token="secret", **options)


def test_push_and_pull(hub: HubServer, model: edgeseg.Pixel2Pixel) -> None:
    address = push(model, license="mit", dataset="Lake Set", metrics={"mean_iou": 71.5})
    assert address == f"{hub.url}/me/lakes/commit/{COMMIT}"
    assert sorted(hub.repos["me/lakes"]) == ["README.md", "config.json", "model.safetensors"]
    assert "hf-hub:me/lakes" in hub.repos["me/lakes"]["README.md"].decode()
    assert same(model, edgeseg.create_model("hf-hub:me/lakes"))
    asked = len(hub.paths("GET"))
    assert same(model, edgeseg.create_model("hf-hub:me/lakes"))
    assert len(hub.paths("GET")) == asked  # from the cache
    assert same(model, edgeseg.create_model(f"hf-hub:me/lakes@{COMMIT}"))


def test_cards_that_were_written_by_hand_stay(
    hub: HubServer, model: edgeseg.Pixel2Pixel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "README.md"
    for license in ("mit", "apache-2.0"):
        model.save_pretrained(tmp_path, license=license)
        assert ModelCard.load(card).data.license == license
    card.write_text(card.read_text().replace("A `fpn` network", "My network"))
    model.save_pretrained(tmp_path, license="mit")
    assert "My network" in card.read_text()
    assert "README.md was written by hand and stays as it is" in capsys.readouterr().out
    push(model)
    hub.repos["me/lakes"]["README.md"] = b"# Lakes\n"
    push(model, license="mit")
    assert hub.repos["me/lakes"]["README.md"] == b"# Lakes\n"
    with pytest.raises(ValueError, match=r"weights are written as \.safetensors files, got .*x\.pth"):
        edgeseg.save_checkpoint(model, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"floating-point type, such as torch\.float16, got torch\.int8"):
        edgeseg.save_checkpoint(model, tmp_path / "x.safetensors", dtype=torch.int8)


def test_through_the_environment(hub: HubServer, model: edgeseg.Pixel2Pixel) -> None:
    """HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE as a user sets them, in a process of its own."""
    push(model)
    hub.private.add("me/lakes")

    def load(**variables: str) -> subprocess.CompletedProcess[str]:
        code = "from edgeseg.storage.hub import open_published; print(open_published('hf-hub:me/lakes')[1].name)"
        environment = {**os.environ, **variables}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert "HF_HUB_OFFLINE is set" in load(HF_HUB_OFFLINE="1").stderr
    assert "private and needs a token" in load().stderr
    assert load(HF_TOKEN="secret").stdout == "fpn\n"
    assert load(HF_HUB_OFFLINE="1").stdout == "fpn\n"


def test_cut_download_resumes(hub: HubServer, model: edgeseg.Pixel2Pixel, monkeypatch: pytest.MonkeyPatch) -> None:
    push(model)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.cut["/me/lakes/model.safetensors"] = [100_000]
    assert same(model, edgeseg.create_model("hf-hub:me/lakes"))
    assert "bytes=100000-" in [wanted for *_, wanted in hub.requests]


def test_corrupt_on_the_hub(hub: HubServer, model: edgeseg.Pixel2Pixel) -> None:
    push(model)
    hub.repos["me/lakes"]["model.safetensors"] = b"not weights"
    with pytest.raises(ValueError, match="cannot read weights"):
        edgeseg.create_model("hf-hub:me/lakes")


def test_a_flipped_bit_in_the_configuration(hub: HubServer, model: edgeseg.Pixel2Pixel) -> None:
    """The hub calls small files by the hash of git, and not by their SHA-256."""
    push(model)
    edgeseg.create_model("hf-hub:me/lakes")
    (config,) = Path(constants.HF_HUB_CACHE).rglob("snapshots/*/config.json")
    assert len(config.resolve().name) == 40
    content = config.read_bytes()
    config.write_bytes(content.replace(b"1.0", b"1.1", 1))
    with pytest.warns(UserWarning, match=r"config\.json has changed since it was downloaded, and is downloaded again"):
        assert same(model, edgeseg.create_model("hf-hub:me/lakes"))
    assert config.read_bytes() == content


@pytest.mark.parametrize("answer", [b'{"error": "please log in"}', b"[1]", b"<html>Sign in</html>", b""])
def test_an_answer_that_is_no_configuration(answer: bytes, hub: HubServer, model: edgeseg.Pixel2Pixel) -> None:
    push(model)
    content, hub.repos["me/lakes"]["config.json"] = hub.repos["me/lakes"]["config.json"], answer
    with pytest.raises(ValueError, match=r"hf-hub:me/lakes/config\.json is not the file it should be: .* was removed"):
        edgeseg.create_model("hf-hub:me/lakes")
    assert not list(Path(constants.HF_HUB_CACHE).rglob("config.json"))
    hub.repos["me/lakes"]["config.json"] = content
    assert same(model, edgeseg.create_model("hf-hub:me/lakes"))


def test_the_file_of_another_library_stays(hub: HubServer) -> None:
    """It is intact, and its library can use it."""
    hub.repos["me/bert"] = {"config.json": b'{"architectures": ["bert"]}', "model.safetensors": b""}
    path = Path(hf_hub_download("me/bert", "config.json"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"is not the configuration of an edgeseg model$"):
            edgeseg.create_model("hf-hub:me/bert")
    assert path.read_bytes() == hub.repos["me/bert"]["config.json"]


def test_another_model_of_the_hub_is_kept(hub: HubServer, model: edgeseg.Pixel2Pixel) -> None:
    before = hub.repos["me/lakes"] = {"config.json": b'{"architectures": ["bert"]}', "model.safetensors": b"theirs"}
    with pytest.raises(ValueError, match=r"config\.json of me/lakes would be replaced, choose another repository"):
        push(model)
    assert hub.repos["me/lakes"] == before


def test_a_cut_hub_does_not_hide_a_mirror(hub: HubServer, tiny: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    """An error of the HTTP client, which is of its own kind, is one of the reasons to ask the next address."""
    edgeseg.save_checkpoint(tiny, tmp_path / "net.safetensors")
    content = hub.files["/net.safetensors"] = (tmp_path / "net.safetensors").read_bytes()

    def refused(*_: Any, **__: Any) -> None:
        raise http_error()("the server disconnected")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.hf_hub_download", refused)
        path = fetch(["hf-hub:me/lakes/model.safetensors", f"{hub.url}/net.safetensors"], "x")
        assert path.read_bytes() == content
        with pytest.raises(ConnectionError, match=r"hf-hub:me/lakes/config\.json: the server disconnected"):
            edgeseg.create_model("hf-hub:me/lakes")


@pytest.mark.parametrize("metrics", [{"miou": float("nan")}, [1], "abc", {"miou": "high"}])
def test_metrics_that_are_no_numbers(metrics: Any, model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics (is a dictionary of numbers by name|must be finite numbers)"):
        model.save_pretrained(tmp_path / "new", dataset="Lakes", metrics=metrics)
    assert not (tmp_path / "new").exists()


def test_a_hub_without_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror.example.com")
    with pytest.raises(
        ValueError, match=r"refused http://mirror\.example\.com: .*; set HF_ENDPOINT to an address https"
    ):
        edgeseg.create_model("hf-hub:me/lakes")


def test_nothing_is_created_for_a_card_that_cannot_be(hub: HubServer, model: edgeseg.Pixel2Pixel) -> None:
    with pytest.raises((ValueError, TypeError)):
        push(model, metrics={"mean_iou": 60})  # on no dataset
    with pytest.raises(TypeError):
        push(model, licence="mit")
    assert not hub.requests


def test_refusals(hub: HubServer, model: edgeseg.Pixel2Pixel, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no repository me/nothing on the hub"):
        edgeseg.create_model("hf-hub:me/nothing")
    hub.repos["me/other"] = {"model.safetensors": b""}
    with pytest.raises(FileNotFoundError, match=r"me/other has no file config\.json"):
        edgeseg.create_model("hf-hub:me/other")
    push(model)
    with pytest.raises(FileNotFoundError, match="no revision 'v9'"):
        edgeseg.create_model("hf-hub:me/lakes@v9")
    hub.private.add("me/lakes")
    with pytest.raises(FileNotFoundError, match="needs a token"):
        edgeseg.create_model("hf-hub:me/lakes")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set"):
        edgeseg.create_model("hf-hub:me/lakes")


@pytest.mark.parametrize("repo", ["../../etc", "me/..", "/etc/passwd", "me", "", "me/lakes/../../x", "a/b c"])
def test_names_never_leave_the_cache(repo: str, hub: HubServer) -> None:
    with pytest.raises(ValueError, match=r"not a file of a hub repository|cannot be a hub repository"):
        edgeseg.create_model(f"hf-hub:{repo}")
    assert hub.requests == []


def test_another_configuration_is_kept(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=r"config\.json would be replaced, choose another folder"):
        model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize("card", [{"license": ["mit"]}, {"description": 5}, {"dataset": 5, "metrics": {"miou": 1.0}}])
def test_a_wrong_card_changes_nothing(card: dict[str, Any], model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = edgeseg.create_model("fpn", encoder=TINY, channels=8, num_classes=2)
    with pytest.raises(TypeError, match=r"(license|description|dataset) must be text, got"):
        other.save_pretrained(tmp_path, **card)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_info_of_a_saved_model(model: edgeseg.Pixel2Pixel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.save_pretrained(tmp_path, license="mit")
    assert main(["info", f"local-dir:{tmp_path}"]) == 0
    assert "mit" in capsys.readouterr().out
    assert main(["info", str(tmp_path)]) == 2
    assert f"is a folder, not a file of weights; its model is local-dir:{tmp_path}" in capsys.readouterr().err
