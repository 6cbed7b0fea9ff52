"""The ways to turn a batch of images into label maps that speed.py and compare.py measure."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fvcore.nn import FlopCountAnalysis
from onnxruntime import InferenceSession
from smp_networks import ARCHITECTURES, decoder_of, pad_to_32, plain_network
from torch import Tensor, nn

import edgeseg
from edgeseg.data import Streets
from edgeseg.deploy.quantize import quantize_onnx
from edgeseg.machine.memory import keep_freed_memory
from edgeseg.machine.processor import computes_bf16, saturates_in_8_bit
from edgeseg.networks.layers import resize
from edgeseg.tasks import KINDS

CLASSES = 11
PLAIN = "plain eager"
IN_A_FILE = " onnxruntime"  # what the names of peers end in that do not run in PyTorch
# Networks of torchvision, by the name of their way.
TORCHVISION = {
    "torchvision LR-ASPP MobileNetV3": "lraspp_mobilenet_v3_large",
    "torchvision DeepLabV3 MobileNetV3": "deeplabv3_mobilenet_v3_large",
}
Run = Callable[[], object]


class Setting(NamedTuple):
    """What all ways of a benchmark share."""

    model: str
    device: str
    folder: str  # where exported files are written
    compile: bool


class Ways:
    """All ways to run one network of the zoo and its peers in other libraries.

    Attributes:
        model: The network of the zoo.
        peers: Functions that create the peers, by way.
        build: Functions that take a batch of images and return the function that labels it, by way.
    """

    def __init__(self, setting: Setting) -> None:
        self.device, self.folder = torch.device(setting.device), Path(setting.folder)
        self.model = edgeseg.create_model(setting.model).eval().to(self.device)
        decoder = decoder_of(setting.model)
        self.peers: dict[str, Callable[[], nn.Module]] = {
            f"segmentation_models_pytorch {ARCHITECTURES[decoder]}": partial(_Padded, decoder),
            **{way: partial(torchvision_network, name) for way, name in TORCHVISION.items()},
        }
        self.build: dict[str, Callable[[Tensor], Run]] = {PLAIN: partial(self._plain, lambda: self.model)}
        for name, options in self._optimizations(setting.compile).items():
            self.build[f"edgeseg.optimize{name}"] = partial(self._optimized, options)
        if self.device.type == "cpu":
            self.build["onnxruntime float32"] = partial(self._exported, "float32")
            self.build["onnxruntime int8"] = partial(self._exported, "int8")
        self.build |= {name: partial(self._plain, peer) for name, peer in self.peers.items()}
        if self.device.type == "cpu":
            self.build |= {f"{name}{IN_A_FILE}": partial(self._exported_peer, name) for name in self.peers}

    def _optimizations(self, compile: bool) -> dict[str, dict[str, Any]]:
        """Arguments of `edgeseg.optimize`, by the end of the way's name."""
        dtypes: dict[str, dict[str, Any]] = {"": {}}
        if computes_bf16(self.device):
            dtypes[" bfloat16"] = {"dtype": torch.bfloat16}
        compiled = {f" compiled{name}": {**options, "compile": True} for name, options in dtypes.items()}
        if self.device.type == "cuda":
            dtypes[" float16"] = {"dtype": torch.float16}
        return dtypes | (compiled if compile else {})

    def _plain(self, make: Callable[[], nn.Module], images: Tensor) -> Run:
        """Argmax of logits at the size of the images."""
        network = make().eval().to(self.device)
        return lambda: self._finish(_logits(network(images)).argmax(dim=1).to(torch.uint8))

    def _optimized(self, options: Mapping[str, Any], images: Tensor) -> Run:
        """`edgeseg.optimize`, with labels that are computed without logits at the size of the images."""
        keep_freed_memory()
        network = edgeseg.optimize(self.model, **options)
        task = next(iter(network.tasks))
        return lambda: self._finish(_labels(network.decode(images)[task], images))

    def _exported(self, precision: str, images: Tensor) -> Run:
        """The session of `edgeseg.OnnxSegmenter`, with labels computed as `edgeseg.OnnxSegmenter` does."""
        path = self.folder / f"{precision}.onnx"
        if not path.is_file():
            self._export(precision, path)
        segmenter, array = edgeseg.OnnxSegmenter(path), images.numpy()

        def run() -> object:
            (logits,) = segmenter.run(array).values()
            return _labels(torch.from_numpy(logits), images)

        return run

    def _exported_peer(self, name: str, images: Tensor) -> Run:
        """A peer in onnxruntime, exported for these images. As in PyTorch, its logits have the size of the images."""
        path = self.folder / f"{name} {tuple(images.shape)}.onnx"
        if not path.is_file():
            network = _Logits(self.peers[name]().eval())
            torch.onnx.export(network, (images,), path, input_names=["images"], dynamo=True, verbose=False)
        session, array = InferenceSession(path, providers=["CPUExecutionProvider"]), images.numpy()
        return lambda: torch.from_numpy(session.run(None, {"images": array})[0]).argmax(dim=1).to(torch.uint8)

    def _export(self, precision: str, path: Path) -> None:
        if precision == "int8":
            streets = Streets("train", (360, 480), length=8)
            quantize_onnx(self.model, path, [streets[i][0] for i in range(8)], reduce_range=saturates_in_8_bit())
        else:
            edgeseg.export_onnx(self.model, path, output="small_logits")

    def _finish(self, labels: Tensor) -> Tensor:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return labels

    def gmacs(self, way: str, size: Sequence[int]) -> float:
        """Returns the GMACs of the convolutions per image. For peers fvcore counts them, which differs little."""
        network = self._network(way)
        if network is self.model:
            return edgeseg.complexity(self.model, size).gmacs
        counted = FlopCountAnalysis(network.eval(), torch.zeros(1, 3, *size))
        counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return float(counted.by_operator()["conv"]) / 1e9

    def parameters(self, way: str) -> int:
        """Returns the number of parameters."""
        return sum(each.numel() for each in self._network(way).parameters())

    def _network(self, way: str) -> nn.Module:
        """What a way runs: a new peer, in whatever runtime, or the network of the zoo."""
        peer = self.peers.get(way.removesuffix(IN_A_FILE))
        return self.model if peer is None else peer()


def prepare(setting: Setting, way: str, size: Sequence[int], batch: int) -> Run:
    """Prepares one way for a `measuring.Worker`: returns the function that labels a batch of street scenes."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    ways = Ways(setting)
    pixels = Streets("test", (270, 480), length=1)[0][0][None].as_subclass(Tensor)
    image = ways.model.preprocess.normalize(resize(pixels.float(), size).round().byte())
    run: Run = torch.inference_mode()(ways.build[way](image.repeat(batch, 1, 1, 1).to(ways.device)))
    return run


def torchvision_network(name: str) -> nn.Module:
    """Creates a network of torchvision without weights."""
    from torchvision.models import get_model

    return get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES)


def _labels(logits: Tensor, images: Tensor) -> Tensor:
    return KINDS["segmentation"].predictions([logits], images.shape[-2:])


def _logits(output: Any) -> Tensor:
    return next(iter(output.values())) if isinstance(output, Mapping) else output


class _Logits(nn.Module):
    """A peer that returns logits only."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return _logits(self.network(images))


class _Padded(nn.Module):
    """A network of segmentation_models_pytorch for images of any size."""

    def __init__(self, decoder: str) -> None:
        super().__init__()
        self.network = plain_network(decoder, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        return self.network(pad_to_32(images))[..., :height, :width]
