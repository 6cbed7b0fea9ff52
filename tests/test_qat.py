"""Quantization-aware training: what is rounded, that it trains, and that onnxruntime computes the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import edgeseg
from edgeseg.cli import main
from edgeseg.data import Streets
from edgeseg.deploy.quantize import quantize_onnx
from edgeseg.engine import TrainConfig, train
from edgeseg.networks.decoders import Decoder, Pyramid
from edgeseg.networks.equalize import equalize_channels
from edgeseg.networks.fold import fold_batch_norms
from edgeseg.networks.quantized import QuantizedConv2d, Quantizer, freeze_ranges, quantize_aware
from edgeseg.spec import Quantization, Task
from edgeseg.storage.checkpoint import save_checkpoint
from edgeseg.tasks import KINDS
from edgeseg.vision.preprocess import to_input

from .conftest import TINY

SIZE = (96, 128)
NETWORKS = [
    ("fpn", {"encoder": "mobilenetv2"}),
    ("unet", {"encoder": "regnetx400mf"}),
    ("deeplabv3plus", {"encoder": "resnet50_p5"}),
    ("bifpn", {"encoder": "mobilenetv2"}),
    ("fpnsum", {"encoder": "mobilenetv2"}),
    ("fpn", {"encoder": "mobilenetv2", "aspp": False}),
    ("fpn", {"encoder": TINY}),
    ("unet", {"encoder": "mobilenetv3_small_050"}),  # hard swish, squeeze and excite
]


def some(name: str, **options: Any) -> edgeseg.Pixel2Pixel:
    """A network whose batch norms have seen something."""
    model = edgeseg.create_model(name, num_classes=5, channels=32, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_folded_batch_norms(name: str, options: dict[str, str]) -> None:
    model = some(name, **options)
    folded = copy.deepcopy(model)
    count = fold_batch_norms(folded)
    assert count == sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = model(image)["segmentation"], folded(image)["segmentation"]
    assert float((expected - found).abs().max()) < 1e-4 * float(expected.std())


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@pytest.mark.parametrize("scheme", ["per_channel", "power_of_two"])
def test_what_is_rounded(name: str, options: dict[str, str], scheme: str) -> None:
    model = some(name, **options)
    quantized = quantize_aware(model, Quantization(scheme=scheme))  # type: ignore[arg-type]
    image = torch.rand(2, 3, 128, 128) * 4 - 2
    with torch.no_grad():
        expected = model(image)["segmentation"]
        unseen = quantized.eval()(image)["segmentation"]
        quantized.train()(image)
        found = quantized.eval()(image)["segmentation"]
    assert float((expected - unseen).abs().mean()) < 0.06 * float(expected.std())  # only the weights are rounded
    assert float((expected - found).abs().mean()) < 0.06 * float(expected.std())
    assert not torch.equal(unseen, found)
    plain = [name for name, m in quantized.named_modules() if type(m) is torch.nn.Conv2d and not name.endswith(".conv")]
    convolutions = [m for m in quantized.modules() if isinstance(m, QuantizedConv2d)]
    wanted = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == len(wanted)
    assert not plain
    seen: dict[str, int] = {}

    def inputs(name: str, module: QuantizedConv2d, given: tuple[torch.Tensor, ...]) -> None:
        x = given[0] if module.before is None else module.before(given[0])
        seen[name] = max(len(x.unique()), seen.get(name, 0))

    for path, module in quantized.named_modules():
        if isinstance(module, QuantizedConv2d):
            module.register_forward_pre_hook(lambda m, given, path=path: inputs(path, m, given))
    with torch.no_grad():
        quantized(image)
    assert len(seen) == len(convolutions)
    assert max(seen.values()) <= 256  # every convolution sees 8 bit
    for module in quantized.modules():
        if isinstance(module, Quantizer) and scheme == "power_of_two":
            scale, zero = module.scale_and_zero()
            assert float(scale.log2()).is_integer()
            assert int(zero) in (0, 128)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_equalized_channels(name: str, options: dict[str, str]) -> None:
    """The same answers; channels before depthwise convolutions reach equally far."""
    model = some(name, **options)
    equal = copy.deepcopy(model)
    images = [[torch.randn(1, 3, 96, 128)] for _ in range(3)]
    count = equalize_channels(equal, images)
    depthwise = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.groups == m.in_channels > 1]
    assert count <= len(depthwise)
    with torch.no_grad():
        expected, found = model(*images[0])["segmentation"], equal(*images[0])["segmentation"]
    assert float((expected - found).abs().max()) < 1e-4 * float(expected.std())
    if options["encoder"] != "mobilenetv2":
        return
    assert count >= 17  # each of the encoder
    ranges: list[list[float]] = []
    for network in (model, equal):
        stem = network.encoder.get_submodule("streams.0.0")
        seen = torch.stack([stem(inputs[0])[0] for inputs in images]).amax(dim=(0, 2, 3))
        ranges.append((seen / seen.max()).tolist())
    assert min(ranges[0]) < 0.9
    assert min(ranges[1]) == pytest.approx(1, abs=1e-3)


def test_channels_that_something_else_reads_stay() -> None:
    """Here the sum of a block reads them too."""
    model = some("fpn", encoder="mobilenetv2")
    stem, expansion = model.encoder.get_submodule("streams.0.0"), model.encoder.get_submodule("streams.0.1")
    expansion.register_forward_hook(lambda _, inputs, output: output + inputs[0].mean())
    before = copy.deepcopy(stem.state_dict())
    equalize_channels(model, [[torch.randn(1, 3, 96, 128)]])
    assert all(torch.equal(value, stem.state_dict()[name]) for name, value in before.items())


def test_biases_of_folded_batch_norms_are_trained() -> None:
    model = some("fpn", encoder="mobilenetv2")
    assert all(each.requires_grad for each in quantize_aware(model).parameters())
    model.encoder.requires_grad_(False)
    quantized = quantize_aware(model)
    assert not any(each.requires_grad for each in quantized.encoder.parameters())
    assert all(each.requires_grad for each in quantized.decoders.parameters())


def test_ranges_follow_until_they_are_frozen() -> None:
    quantizer = Quantizer(Quantization()).train()
    x = torch.linspace(-1, 3, 4096).view(1, 1, 64, 64)
    quantizer(x)
    assert float(quantizer.low) == pytest.approx(-1, abs=0.05)
    assert float(quantizer.high) == pytest.approx(3, abs=0.1)
    quantizer(2 * x)
    assert float(quantizer.high) == pytest.approx(4.5, abs=0.1)  # the mean of 3 and 6
    quantizer.eval()(9 * x)
    freeze_ranges(quantizer)
    quantizer.train()(9 * x)
    assert float(quantizer.high) == pytest.approx(4.5, abs=0.1)
    outlier = torch.cat([x.flatten(), torch.tensor([1e6])])[None, None, None, :].expand(1, 1, 4, 4097)
    trimmed = Quantizer(Quantization()).train()
    trimmed(outlier.repeat(1, 1, 64, 1))
    assert float(trimmed.high) <= 1e6  # the histogram's own width is the limit


def test_gradients_pass_where_nothing_is_cut_off() -> None:
    quantizer = Quantizer(Quantization()).train()
    quantizer(torch.linspace(0, 1, 1024).view(1, 1, 32, 32))
    freeze_ranges(quantizer)
    x = torch.tensor([[[[-0.5, 0.3, 0.9, 2.0]]]], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0, 1, 1, 0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float network, trained for a little while."""
    folder = tmp_path_factory.mktemp("float")
    torch.manual_seed(0)
    streets = Streets("train", length=16)
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks=streets.tasks)
    config = TrainConfig(
        epochs=15, batch_size=8, img_resize=SIZE, rand_crop=SIZE, rand_scale=(1, 1), workers=0, lr=0.05, ema=0.0,
        bf16=False,
    )  # fmt: skip
    save_checkpoint(train(model, streets, None, config, folder), folder / "float.safetensors")
    return folder / "float.safetensors"


@pytest.fixture(scope="module", params=["per_channel", pytest.param("power_of_two", marks=pytest.mark.slow)])
def run(request: pytest.FixtureRequest, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on with rounding, by the command line."""
    folder = tmp_path_factory.mktemp(request.param)
    data = ["--dataset", "streets", "--length", "16", "--val-split", "none"]
    sizes = ["--img-resize", *map(str, SIZE), "--rand-crop", *map(str, SIZE), "--rand-scale", "1", "1"]
    rest = ["--batch-size", "8", "--workers", "0", "--no-bf16", "--ema", "0", "--lr", "0.05"]
    call = ["train", *data, *sizes, *rest, "--model", "fpn", "--pretrained", str(trained)]
    assert main([*call, "--quantize", request.param, "--epochs", "4", "-o", str(folder / "int8")]) == 0
    return folder


def test_distillation_undoes_the_rounding(trained: Path, tmp_path: Path) -> None:
    """It goes by the float network's answers, which come nearer; labels do not matter."""
    model, streets = edgeseg.create_model("fpn", checkpoint_path=trained).eval(), Streets("train", length=16)
    model.configure(preprocess=edgeseg.Preprocess(size=SIZE))
    images = [model.prepare(streets[index][0]) for index in range(8)]
    how = {"batch_size": 8, "img_resize": SIZE, "rand_crop": SIZE, "rand_scale": (1, 1), "jitter": 0.0, "bf16": False}

    def distance(network: edgeseg.Pixel2Pixel) -> float:
        with torch.no_grad():
            pairs = [(network.eval().decode(*x)["semantic"], model.eval().decode(*x)["semantic"]) for x in images]
        return sum(float(KINDS["segmentation"].divergence(found, expected)) for found, expected in pairs)

    def run(epochs: int, lr: float, shift: int) -> edgeseg.Pixel2Pixel:
        pairs = (streets[index] for index in range(len(streets)))
        samples = [(image, (labels + shift) % model.tasks["semantic"].channels) for image, labels in pairs]
        config = TrainConfig(
            quantize="power_of_two", distillation=1.0, epochs=epochs, lr=lr, ema=0.0, workers=0, warmup_epochs=0,
            **how,  # type: ignore[arg-type]
        )  # fmt: skip
        return train(copy.deepcopy(model), samples, None, config, tmp_path / f"{epochs}_{lr}_{shift}")

    first, second = run(8, 1e-3, 0), run(8, 1e-3, 3)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert distance(first) < 0.9 * distance(run(8, 0.0, 0))


def test_onnxruntime_computes_the_same(run: Path) -> None:
    """Of the pixels of unseen streets; and the loaded checkpoint is what was exported."""
    model = edgeseg.create_model("fpn", checkpoint_path=run / "int8/last.safetensors").eval()
    assert model.config.quantization == Quantization(scheme=run.name.rstrip("0123456789"))  # type: ignore[arg-type]
    segmenter = edgeseg.OnnxSegmenter(run / "int8/int8.onnx")
    streets, same = Streets("test", SIZE, length=4), []
    for index in range(4):
        pixels = streets[index][0].as_subclass(torch.Tensor)
        with torch.inference_mode():
            expected = model.decode(to_input(pixels, model.preprocess))["semantic"].argmax(dim=1).numpy()
        found = segmenter.run(pixels.numpy()[None])["semantic"].argmax(axis=1)
        same.append(float((found == expected).mean()))
    assert np.mean(same) > 0.9  # a network of so little training is sure of little


def test_onnxruntime_runs_8_bit(run: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(run / "int8/int8.onnx", options)
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") > 20
    assert kinds.count("Conv") + kinds.count("FusedConv") == 0
    assert kinds.count("MatMulIntegerToFloat") == 1  # the logits
    file = onnx.load(run / "int8/int8.onnx")
    values = {each.name: numpy_helper.to_array(each) for each in file.graph.initializer}
    kinds_of_weights = {
        values[n.input[0]].dtype for n in file.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in values
    }
    assert kinds_of_weights == {np.dtype("int8"), np.dtype("int32")}
    makers = {name: node for node in file.graph.node for name in node.output}
    sizes = [makers.get(node.input[0]) for node in file.graph.node if node.op_type == "Shape"]
    assert {node.op_type for node in sizes if node is not None} == {"QuantizeLinear"}  # others are of the image
    scales = {values[n.input[1]].size for n in file.graph.node if n.op_type == "DequantizeLinear"}
    assert (max(scales) == 1) == run.name.startswith("power_of_two")


@pytest.mark.parametrize("quantize", ["none", "per_channel"])
def test_the_rounding_is_learned_in_float32(
    quantize: Literal["none", "per_channel"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where training is faster in bfloat16, whose own rounding would come on top."""
    monkeypatch.setattr("edgeseg.engine.bfloat16.trains_faster_in_bf16", lambda device: True)
    streets, seen = Streets("train", length=2, size=SIZE), set()
    model = edgeseg.create_model("fpn", encoder=TINY, channels=16, tasks=streets.tasks)

    def note(module: torch.nn.Module, *_: object) -> None:
        if module.training:
            seen.add(torch.is_autocast_enabled("cpu"))

    model.encoder.register_forward_hook(note)
    config = TrainConfig(epochs=1, batch_size=2, img_resize=SIZE, rand_crop=SIZE, workers=0, quantize=quantize)
    train(model, streets, None, config, tmp_path)
    assert seen == {quantize == "none"}


def test_several_tasks(tmp_path: Path) -> None:
    tasks = {"semantic": Task("segmentation", 3), "depth": Task("depth", 1, range=(0, 9))}
    model = edgeseg.create_model("unet", encoder=TINY, channels=8, in_channels=(3, 3), tasks=tasks)
    quantized = quantize_aware(model)
    images = [torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64)]
    quantized.train()(*images)
    save_checkpoint(quantized, tmp_path / "q.safetensors")
    loaded = edgeseg.create_model("unet", checkpoint_path=tmp_path / "q.safetensors").eval()
    with torch.no_grad():
        expected, found = quantized.eval()(*images), loaded(*images)
    assert all(torch.equal(expected[name], found[name]) for name in tasks)


def test_the_end_is_where_the_calls_end() -> None:
    """Whatever the modules of a decoder are called: here the last one has the first name."""

    @edgeseg.register_decoder("backwards")
    class Backwards(Decoder):
        def __init__(self, pyramid: Pyramid, task: Task, spec: edgeseg.ModelSpec) -> None:
            super().__init__(pyramid)
            self.z_before = pyramid.conv(pyramid.channels[0], 8)
            self.a_last = torch.nn.Conv2d(8, task.channels, 3, padding=1)

        def decode(self, *features: torch.Tensor) -> torch.Tensor:
            return self.a_last(self.z_before(features[0]))

    model = edgeseg.create_model("backwards", encoder=TINY, num_classes=3)
    quantized = quantize_aware(model, Quantization())
    rounded = [name for name, m in quantized.named_modules() if isinstance(m, Quantizer) and name.startswith("dec")]
    assert any("z_before" in name for name in rounded)
    assert not any("a_last" in name for name in rounded)


def test_wrong_calls() -> None:
    model = some("fpn", encoder=TINY)
    with pytest.raises(ValueError, match="is quantization-aware already"):
        quantize_aware(quantize_aware(model))
    with pytest.raises(ValueError, match=r"Quantization\.scheme is one of per_channel, power_of_two; got 'int4'"):
        Quantization(scheme="int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight_bits is one of 7, 8; got 4"):
        Quantization(weight_bits=4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"distillation must be between 0 and 1, got 1\.5"):
        TrainConfig(distillation=1.5)


def test_exports_keep_the_scales(tmp_path: Path) -> None:
    model = quantize_aware(some("fpn", encoder=TINY), Quantization(weight_bits=7))  # which no processor saturates
    images = [torch.randn(2, 3, 64, 64)]
    model.train()(*images)
    photos = [np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)]
    done = edgeseg.export(model.eval(), tmp_path / "a.onnx", precision="int8", images=photos, size=(64, 96))
    assert max(done.differences.values()) < 0.05
    edgeseg.export(model, tmp_path / "c.onnx", precision="int8", size=(64, 96))  # needs no photos
    with pytest.raises(ValueError, match="was trained for 8 bits; export_onnx writes a file with its scales"):
        quantize_onnx(model, tmp_path / "b.onnx", photos)


def test_other_classes(tmp_path: Path) -> None:
    save_checkpoint(quantize_aware(some("fpn", encoder=TINY)), tmp_path / "q.safetensors")
    with pytest.warns(UserWarning, match="(is|are) not loaded"):
        model = edgeseg.create_model("fpn", checkpoint_path=tmp_path / "q.safetensors", num_classes=7)
    assert model.eval()(torch.zeros(1, 3, 64, 64))["segmentation"].shape[1] == 7
