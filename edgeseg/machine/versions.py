"""Versions of libraries."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version


def version_of(library: str) -> str:
    """Returns the version of a library by the name that it is imported by; "" if it is not installed.

    The package that it was installed from may have another name: onnxruntime also comes as onnxruntime-gpu.
    """
    try:
        return version(library)
    except PackageNotFoundError:
        pass
    try:
        return str(getattr(importlib.import_module(library), "__version__", "unknown"))
    except ImportError:
        return ""
