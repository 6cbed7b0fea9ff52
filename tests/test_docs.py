"""The documents' code runs, and README's commands are the ones that are tested."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image

import edgeseg
from edgeseg.cli import _parser
from edgeseg.cli.parser import Parser
from edgeseg.data import Streets
from edgeseg.deploy.formats import FORMATS
from edgeseg.engine import TrainConfig

from .conftest import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "MODEL_ZOO.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    (f"{path.name}-{i}", block)
    for path in DOCUMENTS
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]

OTHER_LIBRARIES = {"lightning", "albumentations", "segmentation_models_pytorch", "torchmetrics"}


@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_code_runs(
    block: str, photo: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if re.search(r'^[^#]*"CamVid"', block, re.MULTILINE):
        request.getfixturevalue("camvid")
    assert photo == tmp_path / "photo.jpg"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # layers that are new, as the text says
        try:
            exec(compile(block, "block", "exec"), {})
        except ModuleNotFoundError as error:
            if error.name not in OTHER_LIBRARIES:
                raise
            pytest.skip(f"{error.name} is not installed; it is part of edgeseg[own-loop]")


def test_fine_tuning(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example, as it stands but for a shorter training of smaller pictures."""
    streets = Streets("train", (60, 80), length=8, labels="camvid")
    for index in range(8):
        image, labels = streets[index]
        split = "train" if index < 6 else "val"
        for folder, picture in (("images", image.permute(1, 2, 0)), ("masks", labels)):
            path = tmp_path / "own" / folder / split / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.numpy()).save(path)
    (tmp_path / "own/classes.txt").write_text("\n".join(streets.tasks["semantic"].classes))
    short = {"epochs": 1, "img_resize": (60, 80), "rand_crop": (64, 64), "workers": 0}
    monkeypatch.setattr("edgeseg.engine.TrainConfig", lambda **options: TrainConfig(**options | short))
    run = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["fine_tune.py", *map(str, (tmp_path / "own", run, photo))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # layers that are new
        runpy.run_path(str(ROOT / "docs/examples/fine_tune.py"), run_name="__main__")
    assert {path.name for path in run.iterdir()} >= {"best.safetensors", "model.onnx", "photo_labels.png"}
    with Image.open(run / "photo_labels.png") as labels:
        assert labels.size == (90, 60)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_code_is_narrow(path: Path) -> None:
    """Code has at most 88 columns; only an address may need more."""
    for block in re.findall(r"```(?:python|bash)\n(.*?)```", path.read_text(), re.DOTALL):
        for line in block.splitlines():
            assert len(line) <= 88 or "https://" in line, line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)\)", prose):
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_commands_are_understood() -> None:
    """Every `edgeseg` command of the documents, and the table of the original's recipes, parses."""
    commands = []
    for path in DOCUMENTS:
        for block in re.findall(r"```bash\n(.*?)```", path.read_text(), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            commands += [
                line.rpartition("edgeseg ")[2] for line in lines if re.match(r"(torchrun .*)?edgeseg |torchrun", line)
            ]
    rows = re.findall(r"\| `(--dataset [^`]* -o RUN)`", (ROOT / "docs/ti.md").read_text())
    assert len(rows) > 3
    for command in [*commands, *(f"train --recipe original {row}" for row in rows)]:
        _parser().parse_args(shlex.split(command))


def parsers(parser: argparse.ArgumentParser, name: str = "edgeseg") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The parser and those of its verbs at any depth, with the words of the command line that lead to them."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, below in action.choices.items():
                yield from parsers(below, f"{name} {verb}")


def test_every_verb_and_option_is_explained() -> None:
    for name, parser in parsers(_parser()):
        for action in parser._actions:
            if not isinstance(action, argparse._SubParsersAction):
                assert action.help, f"{name} {action.dest}"
        assert (parser.description or "").endswith("."), name


def test_options_are_in_groups_with_titles() -> None:
    general = {"-h", "--version", "--print-completion", "--quiet", "--json"}
    for name, parser in parsers(_parser()):
        for action in (*parser._positionals._group_actions, *parser._optionals._group_actions):
            verbs = isinstance(action, argparse._SubParsersAction)
            assert verbs or general.intersection(action.option_strings), f"{name} {action.dest}"


def test_every_help_ends_with_examples() -> None:
    """Two or more, each of which parses and names models that exist."""
    for name, parser in parsers(_parser()):
        assert isinstance(parser, Parser)
        assert len(parser.examples) >= 2, name
        text = parser.format_help()
        for example in parser.examples:
            assert f"\n  {example}\n" in text
            assert example.startswith(name)
            _parser().parse_args(shlex.split(example)[1:])
            for model in re.findall(r"\b\w+_edgeailite\b[.\w]*", example):
                assert model in [*edgeseg.list_models(), *edgeseg.list_weights()], example


def test_help_of_train_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of every option is shown, whatever characters it has, with its value in each recipe."""
    monkeypatch.setenv("COLUMNS", "10000")
    text = dict(parsers(_parser()))["edgeseg train"].format_help()
    for field in fields(TrainConfig):
        assert f" {field.metadata['help']}" in text, field.name
    assert (
        "height and width of a training sample; img_resize if it is not set (modern: 320 416, original: not set)"
        in text
    )
    assert "use Nesterov momentum with SGD (modern: on, original: off)" in text


def test_names_in_documents_exist() -> None:
    for path in DOCUMENTS:
        for name in re.findall(r"\b\w+_edgeailite\b", path.read_text()):
            assert edgeseg.is_model(name) or "ericsun" in name, f"{name} in {path.name}"


def test_model_zoo_has_every_name() -> None:
    text = (ROOT / "MODEL_ZOO.md").read_text()
    assert all(f"`{name}`" in text for name in [*edgeseg.list_models(), *edgeseg.list_models(pretrained=True)])


def test_table_of_formats() -> None:
    """A row per format, with what it has."""
    text = (ROOT / "docs/deployment.md").read_text()
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `.")}
    assert len(rows) == len(FORMATS)
    assert set(rows) == set(FORMATS)
    for suffix, each in FORMATS.items():
        assert f"| {', '.join(each.precisions)} |" in rows[suffix]
        assert ("any, or one" in rows[suffix]) == ("dynamic" in each.options)
        assert each.title in rows[suffix]
