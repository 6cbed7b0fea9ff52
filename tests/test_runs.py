"""The folder of a training run, and where weights come from: nothing is lost silently, and licences go along."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import edgeseg
from edgeseg.cli import main
from edgeseg.data.camvid import CamVid
from edgeseg.engine import Callback, TrainConfig, run_folder, train
from edgeseg.engine.run_state import read_state
from edgeseg.machine.errors import ExportError
from edgeseg.storage.checkpoint import read_checkpoint_config

from .conftest import TINY

SMALL = TrainConfig(
    epochs=1, batch_size=2, img_resize=(32, 48), rand_crop=(32, 48), rand_scale=(1, 1), jitter=0, warmup_epochs=0,
    workers=0, bf16=False, class_weights="none",
)  # fmt: skip
PARENT = "fpn_aspp_mobilenetv2_tv_edgeailite.camvid"


def make() -> edgeseg.Pixel2Pixel:
    return edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks={"segmentation": CamVid.task})


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_compiled_network_is_refused(camvid: Path, tmp_path: Path) -> None:
    """Its weights would be saved under names that nothing else has."""
    with pytest.raises(ValueError, match="takes the network itself, got a OptimizedModule"):
        train(torch.compile(make()), CamVid(camvid), None, SMALL, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", run_folder.REPORTS)
def test_a_foreign_file_is_not_taken_for_a_report(name: str, camvid: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(FileExistsError, match=rf"{name} would be overwritten, which edgeseg did not write"):
        train(make(), CamVid(camvid), None, SMALL, tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("CamVid", "hf-home")] == [name]
    assert (tmp_path / name).read_text() == '{"mine": 1}'


def test_processes_without_a_group_are_refused(camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would train alone, and all into one folder."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(RuntimeError, match=r"torchrun has started several processes, .*process_group"):
        train(make(), CamVid(camvid), None, SMALL, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_second_run_is_refused(camvid: Path, tmp_path: Path) -> None:
    """Neither Python nor the command line touches a folder that holds a run; a str is a path."""
    run = tmp_path / "run"
    data, val = CamVid(camvid), CamVid(camvid, "val")
    train(make(), data, val, SMALL, str(run))
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(FileExistsError, match=r"run holds a run at epoch 1; pass resume=True, overwrite=True, or an"):
        train(make(), data, None, SMALL, str(run))
    with pytest.raises(ValueError, match="resume=True or overwrite=True, not both"):
        train(make(), data, None, SMALL, run, resume=True, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is a file; the output of training is a folder"):
        train(make(), data, None, SMALL, tmp_path / "file")
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_overwrite_leaves_no_mixture(camvid: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = CamVid(camvid)
    train(make(), data, CamVid(camvid, "val"), SMALL, run)
    for name in ("notes.txt", "int8.onnx"):
        (run / name).write_text("mine")
    with pytest.raises(ValueError, match="uses 64 images"):  # a mistake costs nothing
        train(make(), data, None, replace(SMALL, batch_size=64), run, overwrite=True)
    with pytest.raises(ValueError, match=r"no depth loss named smooth_L1; there are smooth_l1, "):
        train(make(), data, None, replace(SMALL, depth_losses=("smooth_L1", "scale")), run, overwrite=True)
    assert (run / "best.safetensors").is_file()
    train(make(), data, None, replace(SMALL, epochs=2), run, overwrite=True)
    names = {path.name for path in run.iterdir()}
    assert {"notes.txt", "last.safetensors", "run.pt", "metrics.jsonl"} <= names
    assert not {"best.safetensors", "samples.png", "int8.onnx"} & names
    assert [row["epoch"] for row in rows(run)] == [1, 2]


def test_weights_without_a_state(camvid: Path, tmp_path: Path) -> None:
    edgeseg.save_checkpoint(make(), tmp_path / "best.safetensors")
    with pytest.raises(FileExistsError, match=r"holds files of a run \(best\.safetensors\) without its run\.pt"):
        train(make(), CamVid(camvid), None, SMALL, tmp_path)
    with pytest.raises(FileExistsError, match=r"cannot resume: .* holds files of a run \(best\.safetensors\) without"):
        train(make(), CamVid(camvid), None, SMALL, tmp_path, resume=True)


def test_resume_removes_nothing_that_is_not_of_a_run(camvid: Path, tmp_path: Path) -> None:
    (tmp_path / "samples.png").write_text("mine")
    (tmp_path / "tensorboard/other").mkdir(parents=True)
    with pytest.raises(FileExistsError, match=r"files of a run \(samples\.png, tensorboard\) without its run\.pt"):
        train(make(), CamVid(camvid), None, SMALL, tmp_path, resume=True)
    assert (tmp_path / "samples.png").read_text() == "mine"
    assert (tmp_path / "tensorboard/other").is_dir()


def test_arguments_of_other_types(camvid: Path, tmp_path: Path) -> None:
    data = CamVid(camvid)
    with pytest.raises(TypeError, match=r"config must be a TrainConfig, such as TrainConfig\(epochs=40\), got dict"):
        train(make(), data, None, {"epochs": 1}, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"soft_labels must be SoftLabels, such as .*, got Pixel2Pixel"):
        train(make(), data, None, SMALL, tmp_path, soft_labels=make())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda: [1.0] * 11, "not a sequence of numbers, one per class: <function"),
        ({"sky": 1.0}, "not a sequence of numbers, one per class: {'sky': 1.0}"),
        ([1.0] * 10 + [float("nan")], "must be finite and not negative"),
        ([1.0] * 10 + [-1.0], "must be finite and not negative"),
        ([1.0] * 10, "has 10 class weights, and segmentation has 11 classes"),
    ],
)
def test_class_weights_of_a_dataset(weights: Any, message: str, camvid: Path, tmp_path: Path) -> None:
    data = CamVid(camvid)
    data.class_weights = weights
    with pytest.raises(ValueError, match=message):
        train(make(), data, None, replace(SMALL, class_weights="dataset"), tmp_path)
    data.class_weights = torch.ones(11)  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(make(), data, None, replace(SMALL, class_weights="dataset"), tmp_path)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "lower batch_size .* DefaultCPUAllocator"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "photos has ended, .* lower workers"),
    ],
)
def test_memory_that_is_short(error: Exception, message: str, camvid: Path, tmp_path: Path) -> None:
    class Short(Callback):
        def on_step_end(self, run: Any, losses: Any) -> None:
            raise error

    with pytest.raises(MemoryError, match=message):
        train(make(), CamVid(camvid), None, SMALL, tmp_path, callbacks=[Short()])


def test_a_run_that_saved_no_step_may_start_again(camvid: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError):
        train(make(), CamVid(camvid), None, replace(SMALL, lr=1e30), tmp_path)
    train(make(), CamVid(camvid), None, SMALL, tmp_path)
    assert len(rows(tmp_path)) == 1


def explode_once(model: edgeseg.Pixel2Pixel, call: int) -> edgeseg.Pixel2Pixel:
    """Makes a gradient infinite when it is computed for the given time."""
    seen = []

    def explode(gradient: torch.Tensor) -> torch.Tensor:
        seen.append(gradient)
        return gradient * torch.inf if len(seen) == call else gradient

    next(iter(model.decoders.parameters())).register_hook(explode)
    return model


def test_bfloat16_does_not_end_a_run(camvid: Path, tmp_path: Path) -> None:
    """A gradient that bfloat16 makes infinite is computed again in float32."""
    with pytest.warns(
        UserWarning, match=r"the largest gradient is (inf|nan) in bfloat16 in step 6, which is repeated in float32"
    ):
        trained = train(
            explode_once(make(), call=6), CamVid(camvid), None, replace(SMALL, epochs=2, bf16=True), tmp_path
        )
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 2]
    assert all(value.isfinite().all() for value in trained.state_dict().values())


def test_a_diverged_step_leaves_the_last_good_weights(camvid: Path, tmp_path: Path) -> None:
    """The loss of the last step is finite, and its gradient is not."""
    model = explode_once(make(), call=6)
    config = replace(SMALL, epochs=2, bf16=False)
    with pytest.raises(FloatingPointError, match=r"the largest gradient is (inf|nan) in step 6; lower lr"):
        train(model, CamVid(camvid), CamVid(camvid, "val"), config, tmp_path)
    assert [row["epoch"] for row in rows(tmp_path)] == [1]
    assert all(value.isfinite().all() for value in model.state_dict().values())
    saved = edgeseg.create_model("fpn", checkpoint_path=tmp_path / "last.safetensors")
    assert all(value.isfinite().all() for value in saved.state_dict().values())
    train(make(), CamVid(camvid), CamVid(camvid, "val"), config, tmp_path, resume=True)
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 2]


def test_a_loss_that_is_not_finite_changes_nothing(camvid: Path, tmp_path: Path) -> None:
    model = make()
    with torch.no_grad():
        next(iter(model.decoders.parameters())).mul_(torch.inf)
    before = copy.deepcopy(dict(model.named_buffers()))
    with pytest.raises(FloatingPointError, match=r"the loss is nan in step 1; lower lr, .*train/00.\.png"):
        train(model, CamVid(camvid), None, SMALL, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_training_without_gradients_around_it(camvid: Path, tmp_path: Path) -> None:
    with torch.no_grad():
        train(make(), CamVid(camvid), None, SMALL, tmp_path)
        assert not torch.is_grad_enabled()


def test_finished_and_more_epochs(camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, val = CamVid(camvid), CamVid(camvid, "val")
    first = train(make(), data, val, SMALL, tmp_path)
    capsys.readouterr()
    again = train(make(), data, val, SMALL, tmp_path, resume=True)
    out = capsys.readouterr().out
    assert f"{tmp_path} is finished at epoch 1 of 1, best miou " in out
    assert out.endswith(" at epoch 1; more epochs continue it\n")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())
    train(make(), data, val, replace(SMALL, epochs=3), tmp_path, resume=True)
    out = capsys.readouterr().out
    assert "epochs 1 -> 3: the cosine schedule is that of 3 epochs from here on; the learning rate goes on at " in out
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 2, 3]
    with pytest.raises(ValueError, match="the run is at epoch 3 already"):
        train(make(), data, val, replace(SMALL, epochs=2), tmp_path, resume=True)
    with pytest.raises(ValueError, match="the run had 6 training samples, and now there are 4"):
        train(make(), _First(CamVid(camvid), 4), val, replace(SMALL, epochs=4), tmp_path, resume=True)


class _First:
    """The first samples of a dataset."""

    def __init__(self, data: CamVid, count: int) -> None:
        self.data, self.count, self.tasks = data, count, data.tasks

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.data[index]


HOLDER = """
import sys, time
from pathlib import Path
from edgeseg.engine.run_folder import claimed
with claimed(Path(sys.argv[1]), resume=False, overwrite=False):
    print("held", flush=True)
    time.sleep(100)
"""


def test_two_trainings_in_one_folder(camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is refused; the lock of a killed process is released."""
    monkeypatch.setattr(run_folder, "PATIENCE", 0.1)
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=r"another process is training in .*run; wait"):
            train(make(), CamVid(camvid), None, SMALL, tmp_path / "run")
        process.kill()
    train(make(), CamVid(camvid), None, SMALL, tmp_path / "run")


def test_origin_goes_along(camvid: Path, tmp_path: Path) -> None:
    """From weights of the catalog through training, checkpoints, ONNX, int8 and the card of the hub."""
    with pytest.warns(UserWarning, match="(is|are) not loaded"):
        model = edgeseg.create_model(PARENT, num_classes=12)
    tasks = {"segmentation": edgeseg.Task("segmentation", 12)}
    licence = str(edgeseg.weights_info(PARENT).license)
    assert "CC BY-NC" in licence
    expected = {"license": licence, "started_from": PARENT}
    assert {key: model.config.notes.get(key) for key in expected} == expected
    assert "weights" not in model.config.notes
    # Lists of samples, which do not name the 11 classes.
    sets = [CamVid(camvid, split) for split in ("train", "val")]
    data, val = ([each[index] for index in range(len(each))] for each in sets)
    trained = train(model, data, val, replace(SMALL, lr=0.001), tmp_path / "run")
    edgeseg.export_onnx(trained, tmp_path / "model.onnx", output="small_logits", dynamic=())
    for name in ("best", "last"):
        config = read_checkpoint_config(tmp_path / f"run/{name}.safetensors")
        assert config is not None
        assert {key: config.notes.get(key) for key in expected} == expected
        assert "weights" not in config.notes
        assert config.notes["recipe"]["epochs"] == 1
    facts = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert {key: facts.get(key) for key in expected} == expected
    assert "weights" not in facts
    # Once more from the own checkpoint: the licence stays, and so does the first parent.
    child = edgeseg.create_model(
        model.config.name, tasks=tasks, checkpoint_path=tmp_path / "run/best.safetensors", in_channels=(3,)
    )
    trained.save_pretrained(tmp_path / "card")
    trained.save_pretrained(tmp_path / "mit", license="mit")
    assert {key: child.config.notes.get(key) for key in expected} == expected
    card = (tmp_path / "card/README.md").read_text()
    assert f"- **started from**: {PARENT}" in card
    assert "license: other" in card
    assert licence in card
    assert licence in (tmp_path / "mit/README.md").read_text()
    loaded = edgeseg.create_model(f"local-dir:{tmp_path / 'mit'}")
    assert loaded.config.notes["license"] == "mit"
    assert loaded.config.notes["started_from_license"] == licence


def test_origin_of_int8(tmp_path: Path) -> None:
    from edgeseg.deploy.quantize import quantize_onnx

    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=3).eval()
    model.configure(notes={"license": "CC BY-NC", "started_from": "x.camvid"})
    images = [torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8) for _ in range(2)]
    quantize_onnx(model, tmp_path / "int8.onnx", images, size=(32, 48), dynamic=())
    assert edgeseg.OnnxSegmenter(tmp_path / "int8.onnx").config.notes["license"] == "CC BY-NC"
    facts = {entry.key: entry.value for entry in onnx.load(tmp_path / "int8.onnx").metadata_props}
    assert facts["started_from"] == "x.camvid"


def test_origin_of_files_and_encoders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights that are loaded into a model, or into its encoder only, tell it where they come from."""
    parent = make()
    parent.configure(notes={"license": "CC BY-NC", "weights": "x.camvid", "recipe": {}})
    edgeseg.save_checkpoint(parent, tmp_path / "parent.safetensors")
    other = edgeseg.create_model("fpn", encoder=TINY, channels=16, num_classes=3)
    with pytest.warns(UserWarning, match="(is|are) not loaded"):
        edgeseg.load_checkpoint(other, tmp_path / "parent.safetensors", adapt=True)
    assert other.config.notes == {"license": "CC BY-NC", "started_from": "x.camvid"}
    own = edgeseg.create_model("unet", encoder=TINY, encoder_weights=tmp_path / "parent.safetensors")
    assert own.config.notes["encoder"] == {"weights": "x.camvid", "license": "CC BY-NC"}
    assert "license" not in own.config.notes
    torch.save(make().state_dict(), tmp_path / "plain.pth")
    plain = edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks=parent.tasks,
                                 checkpoint_path=tmp_path / "plain.pth")  # fmt: skip
    assert plain.config.notes == {"source": "plain.pth"}
    edgeseg.save_checkpoint(own, tmp_path / "own.safetensors")
    assert main(["info", str(tmp_path / "own.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "unet" in out
    assert TINY in out
    assert "encoder started from     x.camvid" in out
    assert "CC BY-NC" in out


def test_origin_of_a_resumed_run(camvid: Path, tmp_path: Path) -> None:
    """It is that of the run, also if the model to resume was made without the weights that the run started from."""
    model = make()
    pixels = edgeseg.Preprocess(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), channel_order="bgr")
    model.configure(notes={"license": "CC BY-NC", "weights": "x.camvid"}, preprocess=pixels)
    train(model, CamVid(camvid), None, SMALL, tmp_path)
    train(make(), CamVid(camvid), None, replace(SMALL, epochs=2), tmp_path, resume=True)
    config = read_checkpoint_config(tmp_path / "last.safetensors")
    assert config is not None
    assert config.notes["started_from"] == "x.camvid"
    assert config.notes["license"] == "CC BY-NC"
    assert config.preprocess == replace(pixels, size=config.preprocess.size, keep_aspect=config.preprocess.keep_aspect)


def test_licence_of_imagenet_encoders() -> None:
    from edgeseg.zoo.networks import ZOO
    from edgeseg.zoo.pretrained import encoder_note

    spec = ZOO["fpn_aspp_regnetx800mf_edgeailite"]
    assert encoder_note("imagenet", spec) == {"weights": "imagenet (regnetx800mf)", "license": "MIT (pycls)"}
    note = encoder_note("timm/resnet18.a1_in1k", None)
    assert note["weights"] == "timm/resnet18.a1_in1k"
    assert note["license"] == "apache-2.0"


def test_a_killed_run_goes_on(camvid: Path, tmp_path: Path) -> None:
    """The state that is written before the first step is one that a run can start from."""

    class Stop(Exception):
        pass

    class Once(Callback):
        def on_step_end(self, run: Any, losses: Any) -> None:
            raise Stop

    with pytest.raises(Stop):
        train(make(), CamVid(camvid), None, SMALL, tmp_path, callbacks=[Once()])
    assert read_state(tmp_path / "run.pt")["step"] == 0
    train(make(), CamVid(camvid), None, SMALL, tmp_path, resume=True)
    assert len(rows(tmp_path)) == 1


def test_phases_of_frozen_and_trained_encoders(camvid: Path, tmp_path: Path) -> None:
    """Freezing ends with its run; what the user froze stays frozen."""
    model = make()
    stem = next(model.encoder.parameters()).requires_grad_(False)
    first = train(model, CamVid(camvid), None, replace(SMALL, freeze_encoder=True), tmp_path / "a")
    before = {name: value.clone() for name, value in first.encoder.named_parameters()}
    for each in (model, first):
        frozen = [not parameter.requires_grad for parameter in each.encoder.parameters()]
        assert frozen == [True] + [False] * (len(frozen) - 1)
    assert torch.equal(stem, before[next(iter(before))])
    train(first, CamVid(camvid), None, SMALL, tmp_path / "b")
    moved = [not torch.equal(before[name], value) for name, value in first.encoder.named_parameters()]
    assert moved == [False] + [True] * (len(moved) - 1)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"task_factors": (1.0, 2.0)}, "task_factors"),
        ({"batch_size": 64}, "batch_size"),
        ({"bf16": False}, r"the model is in torch\.float16; call model\.float\(\)"),
    ],
)
def test_a_refused_run_leaves_the_model_as_it_was(
    change: dict[str, Any], problem: str, camvid: Path, tmp_path: Path
) -> None:
    model = make()
    model.configure(notes={"weights": "x.camvid"}, preprocess=edgeseg.Preprocess(size=(7, 9)))
    if "bf16" in change:
        model.half()
    before = model.config
    with pytest.raises(ValueError, match=problem):
        train(model, CamVid(camvid), None, replace(SMALL, freeze_encoder=True, **change), tmp_path)
    assert model.config == before
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_models_that_cannot_be_trained(camvid: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"optimize\(\) made; train the model that it was made from"):
        train(edgeseg.optimize(make().eval()), CamVid(camvid), None, SMALL, tmp_path)
    with pytest.raises(ValueError, match="no parameter of the model is trained"):
        train(make().requires_grad_(False), CamVid(camvid), None, SMALL, tmp_path)
    with pytest.raises(ValueError, match="leave out one of them"):
        replace(SMALL, freeze_encoder=True, quantize="per_channel")
    contradictions: tuple[tuple[dict[str, Any], str], ...] = (
        ({"output_size": (8, 8)}, 'belongs to the protocol "original"'),
        ({"task_factors": (1.0, 2.0), "balancing": "uncertainty"}, "task_factors has no effect"),
        ({"weight_bits": 7}, "weight_bits belongs to quantization-aware training"),
        ({"mirror": 1.5}, "mirror must be between 0 and 1"),
    )
    for options, message in contradictions:
        with pytest.raises(ValueError, match=message):
            replace(SMALL, **options)
    for change in ({"momentum": 1.0}, {"decoder_lr": -1.0}, {"task_factors": (-1.0,)}, {"milestones": (-5,)}):
        with pytest.raises(ValueError, match=next(iter(change))):
            replace(SMALL, **change)


def test_training_for_8_bits_leaves_the_float_network(camvid: Path, tmp_path: Path) -> None:
    model = make().train()
    torch.manual_seed(7)
    random = torch.get_rng_state()
    recipe = replace(SMALL, quantize="per_channel", distillation=0.5)
    trained = train(model, CamVid(camvid), None, recipe, tmp_path / "a")
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    with pytest.raises(ValueError, match=r"for 8 bits as per_channel, 8 bits, and .* asks for power_of_two"):
        train(trained, CamVid(camvid), None, replace(SMALL, quantize="power_of_two"), tmp_path / "b")


def test_gradients_of_a_frozen_or_compiled_encoder_cannot_balance() -> None:
    for balancing in ("gradnorm", "pseudo_gradnorm"):
        with pytest.raises(ValueError, match="freeze_encoder leaves out"):
            replace(SMALL, freeze_encoder=True, balancing=balancing)
        with pytest.raises(ValueError, match="which a compiled network does not give"):
            replace(SMALL, compile=True, balancing=balancing)


def test_shared_layers_are_saved(tmp_path: Path) -> None:
    tasks = {"a": edgeseg.Task("segmentation", 3), "b": edgeseg.Task("segmentation", 3)}
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks=tasks).eval()
    model.decoders["b"].head = model.decoders["a"].head
    edgeseg.save_checkpoint(model, tmp_path / "shared.safetensors")
    loaded = edgeseg.create_model("fpn", checkpoint_path=tmp_path / "shared.safetensors").eval()
    image = torch.randn(1, 3, 64, 64)
    for name, logits in model(image).items():
        assert torch.equal(loaded(image)[name], logits)


def test_copies_for_inference_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"optimize\(\) made; save the model that it was made from"):
        edgeseg.save_checkpoint(edgeseg.optimize(make().eval()), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_one_file_that_cannot_be_written_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeseg.cli.train import _export

    def export(_: object, path: Path, **__: object) -> None:
        if path.suffix == ".xml":
            raise ExportError("OpenVINO cannot open it")

    monkeypatch.setattr(edgeseg, "export", export)
    assert _export(make(), {tmp_path / "a.xml": {}, tmp_path / "a.onnx": {}}) == 1
    out, err = capsys.readouterr()
    assert "a.xml is not written: OpenVINO cannot open it" in err
    assert "wrote" in out
    assert "a.onnx" in out


def test_calibration_sees_all_of_a_folder() -> None:
    from edgeseg.cli.calibration import _spread

    assert _spread(5, 100) == [0, 1, 2, 3, 4]
    for length in (100, 199, 299, 1000):
        chosen = _spread(length, 100)
        assert len(set(chosen)) == 100
        gaps = [b - a for a, b in zip(chosen, [*chosen[1:], length], strict=True)]
        assert max(gaps) - min(gaps) <= 1
