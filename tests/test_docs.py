"""The documents' code runs, and README's commands are the ones that are tested."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import pytest

import edgeseg
from edgeseg.cli import _parser

from .conftest import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "MODEL_ZOO.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    (f"{path.name}-{i}", block)
    for path in DOCUMENTS
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_code_runs(block: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert photo == tmp_path / "photo.jpg"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # layers that start anew, as the text says
        exec(compile(block, "block", "exec"), {})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
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
    rows = re.findall(r"\| `(--dataset [^`]*)` \|", (ROOT / "docs/training.md").read_text())
    assert len(rows) > 3
    for command in [*commands, *(f"train --recipe original {row}" for row in rows)]:
        _parser().parse_args(shlex.split(command))


def test_names_in_documents_exist() -> None:
    for path in DOCUMENTS:
        for name in re.findall(r"\b\w+_edgeailite\b", path.read_text()):
            assert edgeseg.is_model(name) or "ericsun" in name, f"{name} in {path.name}"


def test_model_zoo_has_every_name() -> None:
    text = (ROOT / "MODEL_ZOO.md").read_text()
    assert all(f"`{name}`" in text for name in [*edgeseg.list_models(), *edgeseg.list_models(pretrained=True)])
