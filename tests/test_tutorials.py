"""The tutorials run from the first cell to the last, and end with a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT

TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))


def pictures(cell: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


@pytest.mark.slow  # .ci/run builds the site, which runs them too
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install 'edgeseg[docs]'")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install 'edgeseg[docs]'")
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    notebook = nbformat.read(path, as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert "%pip install" in code[0]
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()  # raises the error of a cell
    assert pictures(notebook.cells[-1]) == 1


def test_no_outputs_are_stored() -> None:
    assert len(TUTORIALS) == 4
    for path in TUTORIALS:
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        assert not any(cell["outputs"] or cell["execution_count"] for cell in cells), path.name
