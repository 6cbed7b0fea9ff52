"""Configuration of the documentation site: sphinx-build -W docs site (pip install edgeseg[docs])."""

from typing import Any

from edgeseg import __version__

project = "edgeseg"
copyright = "the edgeseg authors, BSD-3-Clause"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["pictures.py"]
html_theme = "furo"
html_title = f"edgeseg {__version__}"
myst_heading_anchors = 3
# Single backticks in docstrings mark code.
default_role = "literal"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_use_ivar = True


def setup(app: Any) -> None:
    """Makes links to MODEL_ZOO.md lead to its page of the site."""
    app.connect("source-read", _to_the_page)


def _to_the_page(_: Any, __: str, content: list[str]) -> None:
    content[0] = content[0].replace("(../MODEL_ZOO.md", "(zoo.md")
