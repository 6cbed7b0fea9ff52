"""edgeseg: a zoo of edge semantic-segmentation networks. Importing it does not load torch; using it does."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeseg.config import ModelConfig
from edgeseg.spec import Input, ModelSpec, Preprocess, Quantization, Task
from edgeseg.zoo.create import create_model
from edgeseg.zoo.registry import (
    is_model,
    list_models,
    list_weights,
    model_info,
    register_decoder,
    register_encoder,
    register_kind,
    register_model,
    weights_info,
)

if TYPE_CHECKING:
    from edgeseg.deploy.fast import optimize
    from edgeseg.deploy.formats import export
    from edgeseg.deploy.onnx import export_onnx
    from edgeseg.deploy.program import export_program
    from edgeseg.deploy.tidl import export_tidl
    from edgeseg.deploy.web import export_web
    from edgeseg.networks.cost import Complexity, complexity
    from edgeseg.networks.pixel2pixel import Pixel2Pixel
    from edgeseg.predict.load import load_segmenter
    from edgeseg.predict.onnx import OnnxSegmenter
    from edgeseg.storage.checkpoint import save_checkpoint
    from edgeseg.weights.load import load_checkpoint

__version__ = "0.1.0"

__all__ = [
    "Complexity",
    "Input",
    "ModelConfig",
    "ModelSpec",
    "OnnxSegmenter",
    "Pixel2Pixel",
    "Preprocess",
    "Quantization",
    "Task",
    "complexity",
    "create_model",
    "export",
    "export_onnx",
    "export_program",
    "export_tidl",
    "export_web",
    "is_model",
    "list_models",
    "list_weights",
    "load_checkpoint",
    "load_segmenter",
    "model_info",
    "optimize",
    "register_decoder",
    "register_encoder",
    "register_kind",
    "register_model",
    "save_checkpoint",
    "weights_info",
]

# Names that need torch or onnxruntime; they are imported when they are first used (PEP 562).
_LAZY = {
    "Complexity": "edgeseg.networks.cost",
    "OnnxSegmenter": "edgeseg.predict.onnx",
    "Pixel2Pixel": "edgeseg.networks.pixel2pixel",
    "complexity": "edgeseg.networks.cost",
    "export": "edgeseg.deploy.formats",
    "export_onnx": "edgeseg.deploy.onnx",
    "load_segmenter": "edgeseg.predict.load",
    "export_program": "edgeseg.deploy.program",
    "export_tidl": "edgeseg.deploy.tidl",
    "export_web": "edgeseg.deploy.web",
    "load_checkpoint": "edgeseg.weights.load",
    "optimize": "edgeseg.deploy.fast",
    "save_checkpoint": "edgeseg.storage.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'edgeseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
