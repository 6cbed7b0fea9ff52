"""The structure of the package: which room may import which, and that README's tree shows all of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT

PACKAGE = ROOT / "edgeseg"
# From the ground up. A room may import those below it, and itself; "nouns" are the files beside the rooms.
FLOORS = [
    "nouns", "machine", "vision", "tasks", "predict", "storage", "networks", "data", "weights", "deploy", "zoo",
    "engine", "cli",
]  # fmt: skip
# What a room has no business with, although it is below.
FORBIDDEN = {
    "data": {"networks"},
    "deploy": {"weights", "data"},
    "zoo": {"deploy", "data"},
    "engine": {"zoo", "weights", "deploy"},
}
NOUNS = {"arguments", "records", "spec", "config", "labels", "recipes"}


def imports(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "edgeseg":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if (ROOT / f"{name.replace('.', '/')}.py").is_file() else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "edgeseg")


def room(module: str) -> str:
    parts = module.split(".")
    return "door" if len(parts) == 1 else "nouns" if parts[1] in NOUNS else parts[1]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if room(module_of(path)) in FLOORS]


def test_every_file_has_a_room() -> None:
    outside = {path.name for path in PACKAGE.rglob("*.py")} - {path.name for path in FILES}
    assert outside <= {"__init__.py", "__main__.py"}
    assert {room(module_of(path)) for path in FILES} == set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_down(path: Path) -> None:
    own = room(module_of(path))
    for module in imports(path):
        other = room(module)
        if other == "door":
            assert own == "cli", f"{path} imports {module}"
            continue
        assert FLOORS.index(other) <= FLOORS.index(own), f"{path} imports {module}, which is above it"
        assert other not in FORBIDDEN.get(own, ()), f"{path} imports {module}"


def test_no_circles_between_files() -> None:
    """Counting imports inside functions too."""
    arrows = {module_of(path): {m for m in imports(path) if m != module_of(path)} for path in FILES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"circle: {' -> '.join((*way[way.index(module) :], module))}"
        if module not in done:
            for other in arrows.get(module, ()):
                visit(other, (*way, module))
            done.add(module)

    for module in arrows:
        visit(module, ())


def test_the_machine_knows_nothing_of_edgeseg() -> None:
    for path in (PACKAGE / "machine").glob("*.py"):
        assert {room(module) for module in imports(path)} <= {"machine"}, path


def test_readme_shows_every_room() -> None:
    tree = (ROOT / "README.md").read_text()
    for name in [*(f"{each}/" for each in FLOORS if each != "nouns"), *(f"{each}.py" for each in NOUNS)]:
        assert name in tree, name
