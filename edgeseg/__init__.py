"""edgeseg: a zoo of edge semantic-segmentation networks. Importing it loads no torch; using it does."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeseg.registry import (
    create_model,
    is_model,
    list_models,
    list_weights,
    model_info,
    register_model,
    weights_info,
)
from edgeseg.spec import ModelSpec, Preprocess, Task

if TYPE_CHECKING:
    from edgeseg.cost import Complexity, complexity
    from edgeseg.deploy.export import export_onnx, export_program
    from edgeseg.deploy.optimize import optimize
    from edgeseg.deploy.segmenter import OnnxSegmenter
    from edgeseg.pixel2pixel import Pixel2Pixel
    from edgeseg.weights.checkpoint import save_checkpoint
    from edgeseg.weights.load import load_checkpoint

__version__ = "0.1.0"

__all__ = [
    "Complexity",
    "ModelSpec",
    "OnnxSegmenter",
    "Pixel2Pixel",
    "Preprocess",
    "Task",
    "complexity",
    "create_model",
    "export_onnx",
    "export_program",
    "is_model",
    "list_models",
    "list_weights",
    "load_checkpoint",
    "model_info",
    "optimize",
    "register_model",
    "save_checkpoint",
    "weights_info",
]

# Names that need torch or onnxruntime, found when first used (PEP 562).
_LAZY = {
    "Complexity": "edgeseg.cost",
    "OnnxSegmenter": "edgeseg.deploy.segmenter",
    "Pixel2Pixel": "edgeseg.pixel2pixel",
    "complexity": "edgeseg.cost",
    "export_onnx": "edgeseg.deploy.export",
    "export_program": "edgeseg.deploy.export",
    "load_checkpoint": "edgeseg.weights.load",
    "optimize": "edgeseg.deploy.optimize",
    "save_checkpoint": "edgeseg.weights.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'edgeseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
