"""The original's ONNX files read back: exported here in its conventions, with batch norms folded and names lost."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import edgeseg
from edgeseg import Task
from edgeseg.networks.unfold import unfold_batch_norms
from edgeseg.weights.layouts.original_onnx import read_onnx

FPN = "fpn_aspp_mobilenetv2_tv_edgeailite"
FAMILIES = [
    FPN,
    "fpn_mobilenetv2_tv_fd_edgeailite",
    "fpn_aspp_mobilenetv2_1p4_tv_edgeailite",
    "fpn_aspp_regnetx400mf_edgeailite",
    "fpn_aspp_resnet50_edgeailite",
    "unet_aspp_mobilenetv2_tv_edgeailite",
    "unet_aspp_regnetx800mf_edgeailite",
    "deeplabv3plus_mobilenetv2_tv_edgeailite",
    "deeplabv3plus_resnet50_p5_edgeailite",
    "bifpn_aspp_regnetx400mf_edgeailite",
]


def trained(model: edgeseg.Pixel2Pixel) -> edgeseg.Pixel2Pixel:
    """The model with batch norms that are nothing like new."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return model.eval()


class Original(nn.Module):
    """What the original exported: images as a list in, an int64 label map out, at full size or at the decoder's."""

    def __init__(self, model: edgeseg.Pixel2Pixel, shrunk: bool) -> None:
        super().__init__()
        self.model, self.shrunk = model, shrunk

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model.decode(*images) if self.shrunk else self.model(*images)
        return tuple(logits.argmax(dim=1, keepdim=True) for logits in outputs.values())


def export(model: edgeseg.Pixel2Pixel, path: Path, *, shrunk: bool = False, opset: int = 11) -> Path:
    """Writes the file as the original's training engine does: the tracing exporter, opset 11, constants folded."""
    images = tuple(torch.zeros(1, channels, 64, 128) for channels in model.in_channels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Original(model, shrunk).eval(), images, str(path), opset_version=opset, dynamo=False)
    for_scramble = onnx.load(path)
    for i, node in enumerate(for_scramble.graph.node):
        node.name = f"{node.op_type}_{i}"
    names = {tensor.name: str(i) for i, tensor in enumerate(for_scramble.graph.initializer)}
    for tensor in for_scramble.graph.initializer:
        tensor.name = names[tensor.name]
    for node in for_scramble.graph.node:
        for i, value in enumerate(node.input):
            node.input[i] = names.get(value, value)
    onnx.save(for_scramble, path)
    assert not any(node.op_type == "BatchNormalization" for node in for_scramble.graph.node)
    return path


def difference(a: edgeseg.Pixel2Pixel, b: edgeseg.Pixel2Pixel) -> float:
    """Largest difference of the logits, in standard deviations."""
    images = [torch.randn(2, channels, 64, 128) for channels in a.in_channels]
    with torch.inference_mode():
        ours, theirs = a.eval()(*images), b.eval()(*images)
    return max(float((ours[name] - theirs[name]).abs().max() / ours[name].std()) for name in ours)


@pytest.mark.parametrize(
    ("name", "shrunk"), [*((name, True) for name in FAMILIES), *((name, False) for name in FAMILIES[::5])]
)
def test_round_trip(name: str, shrunk: bool, tmp_path: Path) -> None:
    """At the decoder's size, and for a UNet and an FPN at full size too."""
    source = trained(edgeseg.create_model(name, num_classes=21))
    path = export(source, tmp_path / "model.onnx", shrunk=shrunk)
    loaded = edgeseg.create_model(name, num_classes=21, checkpoint_path=path)
    assert difference(source, loaded) < 1e-4


def test_several_inputs_and_decoders(tmp_path: Path) -> None:
    """Streams are told apart by their image, decoders by their order."""
    tasks = {name: Task("segmentation", 5) for name in ("a", "b", "c")}
    source = trained(edgeseg.create_model(FPN, in_channels=(3, 3), tasks=tasks))
    path = export(source, tmp_path / "model.onnx")
    loaded = edgeseg.create_model(FPN, in_channels=(3, 3), tasks=tasks, checkpoint_path=path)
    assert difference(source, loaded) < 1e-4


def test_quantization_aware_network(tmp_path: Path) -> None:
    """Clip nodes at powers of two where the float network has ReLU, and behind linear layers, change nothing here."""
    name = "unet_aspp_mobilenetv2_tv_edgeailite"
    source = trained(edgeseg.create_model(name, num_classes=32))
    clipped = trained(edgeseg.create_model(name, num_classes=32))
    clipped.load_state_dict(source.state_dict())
    for parent in list(clipped.modules()):
        for child, module in list(parent.named_children()):
            if isinstance(module, nn.ReLU):
                setattr(parent, child, nn.Hardtanh(0.0, 8.0))
            elif isinstance(module, nn.BatchNorm2d) and child == "3":  # behind the linear layer of a MobileNetV2 block
                setattr(parent, child, nn.Sequential(module, nn.Hardtanh(-4.0, 4.0)))
    path = export(clipped, tmp_path / "qat.onnx")
    assert sum(node.op_type == "Clip" for node in onnx.load(path).graph.node) > 50
    loaded = edgeseg.create_model(name, num_classes=32, checkpoint_path=path)
    assert difference(source, loaded) < 1e-4


def test_order_of_nodes_does_not_matter(tmp_path: Path) -> None:
    """Another topological order of the graph is read the same: here depth first from the output."""
    name = "bifpn_aspp_regnetx400mf_edgeailite"
    source = trained(edgeseg.create_model(name, num_classes=4))
    path = export(source, tmp_path / "model.onnx")
    file = onnx.load(path)
    producers = {value: i for i, node in enumerate(file.graph.node) for value in node.output}
    order: list[int] = []
    waiting = [producers[file.graph.output[0].name]]
    while waiting:
        before = [producers[v] for v in reversed(file.graph.node[waiting[-1]].input) if v in producers]
        pending = [i for i in before if i not in order]
        if pending:
            waiting.append(pending[0])
        else:
            order.append(waiting.pop())
    convs = [i for i in order if file.graph.node[i].op_type == "Conv"]
    assert convs != sorted(convs)
    nodes = [file.graph.node[i] for i in order]
    del file.graph.node[:]
    file.graph.node.extend(nodes)
    onnx.checker.check_model(file)
    onnx.save(file, path)
    loaded = edgeseg.create_model(name, num_classes=4, checkpoint_path=path)
    assert difference(source, loaded) < 1e-4


def test_other_classes(tmp_path: Path) -> None:
    path = export(trained(edgeseg.create_model(FPN, num_classes=32)), tmp_path / "ade.onnx")
    with pytest.raises(ValueError, match="32 classes and this model has 19"):
        edgeseg.create_model(FPN, checkpoint_path=path)
    with pytest.warns(UserWarning, match="1 tensor is not loaded"):
        edgeseg.create_model(FPN, num_classes=5, checkpoint_path=path)


@pytest.mark.parametrize("other", ["unet_aspp_mobilenetv2_tv_edgeailite", "fpn_aspp_regnetx400mf_edgeailite"])
def test_another_network(other: str, tmp_path: Path) -> None:
    path = export(trained(edgeseg.create_model(FPN)), tmp_path / "fpn.onnx", shrunk=True)
    model = edgeseg.create_model(other)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"another network.* of the model without a counterpart.* of the file"):
        edgeseg.load_checkpoint(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def _more_weights(file: onnx.ModelProto) -> None:
    weight = onnx.numpy_helper.from_array(np.ones((7, 9), np.float32), "extra")
    file.graph.initializer.append(weight)
    file.graph.node.append(onnx.helper.make_node("MatMul", [file.graph.node[5].output[0], "extra"], ["out"]))


def _fewer_convolutions(file: onnx.ModelProto) -> None:
    convs = [node for node in file.graph.node if node.op_type == "Conv"]
    conv = convs[-2]
    identity = onnx.helper.make_node("Identity", [conv.input[0]], [conv.output[0]])
    file.graph.node.insert(list(file.graph.node).index(conv), identity)
    file.graph.node.remove(conv)


@pytest.mark.parametrize("damage", [_more_weights, _fewer_convolutions])
def test_leftovers_are_refused(damage: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    path = export(trained(edgeseg.create_model(FPN)), tmp_path / "fpn.onnx")
    file = onnx.load(path)
    damage(file)
    onnx.save(file, path)
    with pytest.raises(ValueError, match="another network"):
        edgeseg.create_model(FPN, checkpoint_path=path)


def test_corrupt_file(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not onnx" * 99)
    with pytest.raises(ValueError, match=r"cannot read .*x\.onnx"):
        edgeseg.create_model(FPN, checkpoint_path=tmp_path / "x.onnx")


def test_frozen_parameters_stay_frozen(tmp_path: Path) -> None:
    model = trained(edgeseg.create_model(FPN)).train()
    path = export(trained(edgeseg.create_model(FPN)), tmp_path / "fpn.onnx")
    model.encoder.requires_grad_(False)
    read_onnx(path, model)
    assert model.training
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    assert all(parameter.requires_grad for parameter in model.decoders.parameters())


def test_unfolded_batch_norms_train(tmp_path: Path) -> None:
    """With measured statistics the outputs stay, and training mode, which normalizes by the batch, agrees with them."""
    source = trained(edgeseg.create_model(FPN, num_classes=5))
    path = export(source, tmp_path / "model.onnx")
    folded = edgeseg.create_model(FPN, num_classes=5, checkpoint_path=path)
    ready = edgeseg.create_model(FPN, num_classes=5, checkpoint_path=path)
    batch = torch.randn(8, 3, 96, 96)
    unfold_batch_norms(ready, [[batch[:4]], [batch[4:]]])
    assert difference(folded, ready) < 1e-4

    def jump(model: edgeseg.Pixel2Pixel) -> float:
        """How far the encoder's output in training mode is from that in evaluation mode."""
        with torch.no_grad():
            expected = model.eval().encoder([batch])[-1]
            return float((model.train().encoder([batch])[-1] - expected).abs().mean() / expected.std())

    assert jump(ready) < 1e-3
    assert jump(folded) > 0.1
    with pytest.raises(ValueError, match="at least one batch"):
        unfold_batch_norms(ready, [])


def test_single_into_several(tmp_path: Path) -> None:
    """A published network, of one input and task, into a network of two and two."""
    source = trained(edgeseg.create_model(FPN, num_classes=32))
    path = export(source, tmp_path / "ade.onnx", shrunk=True)
    tasks = {"semantic": Task("segmentation", 32), "motion": Task("segmentation", 2)}
    with pytest.warns(UserWarning, match="(is|are) not loaded"):
        model = edgeseg.create_model(FPN, in_channels=(3, 3), tasks=tasks, checkpoint_path=path)
    image = torch.randn(1, 3, 64, 128)
    encoders: list[Any] = [network.eval().encoder for network in (source, model)]
    deepest = torch.randn(1, 160, 4, 8)
    expected, loaded = (encoder.trunk["17"](deepest) for encoder in encoders)
    torch.testing.assert_close(expected, loaded, rtol=1e-3, atol=1e-4)
    assert model.eval()(image, image)["semantic"].shape == (1, 32, 64, 128)
