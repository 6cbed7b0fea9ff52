"""Versions of libraries, and whether they are installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
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


def require_modules(sentence: str, names: Sequence[str], extra: str) -> None:
    """Raises an ImportError with the command that installs them, unless modules are installed.

    Args:
        sentence: What the message begins with, such as "ONNX files need".
        names: Names of the modules.
        extra: Name of the extra of edgeseg that has them.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{sentence} {', '.join(missing)}: pip install 'edgeseg[{extra}]'")
