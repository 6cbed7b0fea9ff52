"""The reference of the Python interface is complete, and the examples in its docstrings run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

import edgeseg
import edgeseg.data
import edgeseg.engine
import edgeseg.tasks
from edgeseg.deploy.quantize import quantize_onnx
from edgeseg.predict.predictor import Predictor

from .conftest import ROOT

REFERENCE = (ROOT / "docs/api.md").read_text()
DOCUMENTED = set(re.findall(r"^\.\. (?:auto\w+|py:\w+):: ([\w.]+)", REFERENCE, re.MULTILINE))
# Each runs in a folder of its own; the second opens the file that the first has written.
EXAMPLES: list[tuple[Callable[..., Any], ...]] = [
    (edgeseg.create_model,),
    (edgeseg.list_models,),
    (Predictor.predict,),
    (edgeseg.optimize,),
    (edgeseg.export, edgeseg.load_segmenter),
    (edgeseg.data.load_dataset,),
    (edgeseg.engine.train,),
    (edgeseg.engine.evaluate,),
    (edgeseg.engine.evaluate_tasks,),
    (edgeseg.engine.TrainConfig,),
    (edgeseg.engine.Callback,),
    (edgeseg.engine.Teacher,),
    (edgeseg.data.Streets,),
    (edgeseg.Task,),
    (edgeseg.Preprocess,),
    (edgeseg.OnnxSegmenter,),
    (edgeseg.complexity,),
    (edgeseg.export_web,),
    (edgeseg.register_model,),
    (edgeseg.register_decoder,),
    (edgeseg.register_encoder,),
    (quantize_onnx,),
    (edgeseg.Input,),
    (edgeseg.Quantization,),
    (edgeseg.ModelConfig,),
    (edgeseg.Pixel2Pixel,),
    (edgeseg.export_onnx,),
    (edgeseg.export_program,),
    (edgeseg.export_tidl,),
    (edgeseg.is_model, edgeseg.list_weights, edgeseg.model_info, edgeseg.weights_info),
    (edgeseg.save_checkpoint, edgeseg.load_checkpoint),
    (edgeseg.register_kind,),
    (edgeseg.engine.ConfusionMatrix, edgeseg.engine.BinaryScores, edgeseg.engine.DepthErrors),
    (edgeseg.engine.EarlyStopping,),
    (edgeseg.engine.SoftLabels,),
    (edgeseg.engine.choose_threshold,),
    (edgeseg.engine.choose_biases,),
]


def resolved(name: str) -> Any:
    """What a dotted name stands for; None if nothing does."""
    module, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), last, None)
    except ImportError:
        return None


def test_public_names_are_documented() -> None:
    for module in (edgeseg, edgeseg.data, edgeseg.engine, edgeseg.tasks):
        missing = {f"{module.__name__}.{name}" for name in module.__all__} - DOCUMENTED
        assert not missing


def named() -> Iterator[tuple[str, str]]:
    """The names of edgeseg that the documents use, as `edgeseg.NAME` or imported by their code."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text()
        for name in re.findall(r"\bedgeseg(?:\.\w+)+", text):
            yield path.name, name
        for module, names in re.findall(r"^from (edgeseg[\w.]*) import ([\w, ]+)", text, re.MULTILINE):
            yield from ((path.name, f"{module}.{name.strip()}") for name in names.split(","))


def test_names_in_documents_are_documented() -> None:
    documented = [resolved(name) for name in DOCUMENTED]
    for page, name in named():
        found = resolved(name)
        if found is not None and not isinstance(found, types.ModuleType):
            assert any(found is each for each in documented), f"{name} in {page}"


def test_documented_names_exist_and_say_what_they_are() -> None:
    for name in DOCUMENTED:
        found = resolved(name)
        assert found is not None, name
        if inspect.isfunction(found):
            arguments = [each for each in inspect.signature(found).parameters if each != "self"]
            described = inspect.getdoc(found) or ""
            for argument in arguments if "Args:" in described else ():
                assert re.search(rf"^    .*\b{argument}\b.*:", described, re.MULTILINE), f"{name}: {argument}"


def test_choices_are_those_of_the_code() -> None:
    choices = re.findall(r"py:type:: (\S+)\n   :canonical: typing\.Literal\[(.*)\]", REFERENCE)
    assert len(choices) > 4
    for name, values in choices:
        assert ", ".join(f'"{value}"' for value in get_args(resolved(name))) == values


@pytest.mark.parametrize("examples", EXAMPLES, ids=lambda examples: examples[0].__name__)
def test_examples(examples: Sequence[Callable[..., Any]], photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples in docstrings, in a folder with a photo of 90x60 pixels."""
    monkeypatch.chdir(photo.parent)
    for each in map(inspect.unwrap, examples):
        found = doctest.DocTestParser().get_doctest(each.__doc__ or "", {}, each.__qualname__, None, None)
        assert found.examples
        report: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(found, out=report.append)
        assert not result.failed, "".join(report)
