"""The documentation site: pip install ".[docs]", then sphinx-build -n -W docs site."""

import os
from typing import Any
from urllib.request import urlopen

from sphinx.util.inspect import TypeAliasForwardRef
from sphinx.util.nodes import make_refnode

import edgeseg
from edgeseg import __version__


def _inventories(addresses: dict[str, str]) -> dict[str, tuple[str, None]]:
    """The libraries whose documents can be reached now; a build may have no network."""
    reached: dict[str, tuple[str, None]] = {}
    for name, address in addresses.items():
        try:
            urlopen(f"{address}objects.inv", timeout=3).close()
        except OSError:
            break  # the others take as long to fail
        reached[name] = (address, None)
    return reached


# Names that stand for types in signatures; api.md explains them.
TYPES = [
    "edgeseg.Pixel2Pixel",
    "edgeseg.data.base.Sample",
    "edgeseg.data.folder.Values",
    "edgeseg.deploy.calibration.Frame",
    "edgeseg.deploy.formats.Precision",
    "edgeseg.deploy.graph.Output",
    "edgeseg.data.coco.Overlap",
    "edgeseg.deploy.quantize.Calibration",
    "edgeseg.engine.evaluation.Protocol",
    "edgeseg.networks.layers.Activation",
    "edgeseg.predict.segmenter.Fit",
    "edgeseg.spec.Color",
    "edgeseg.vision.images.ImageLike",
    "edgeseg.zoo.create.File",
    "edgeseg.zoo.registry.Decorated",
    "torch.Tensor",
]
SHORT = {name.rpartition(".")[2]: name for name in TYPES}
# Sphinx shows a short name within a union as a call of this class.
TypeAliasForwardRef.__repr__ = lambda self: self.name

project = "edgeseg"
copyright = "the edgeseg authors, BSD-3-Clause"
release = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxext.opengraph",
]
exclude_patterns = ["pictures.py"]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_title = f"edgeseg {__version__}"
# The address at which the site is published, which pictures of previews need.
html_baseurl = os.environ.get("EDGESEG_DOCS_URL", "")
ogp_site_url = html_baseurl
ogp_site_name = "edgeseg"
ogp_image = "_images/demo.jpg"
ogp_image_alt = "Image and optical flow; classes, depth and motion"
ogp_social_cards = {"enable": False}  # they are drawn with matplotlib; demo.jpg serves

# The tutorials are stored without outputs; a build runs those that have changed.
nb_execution_mode = "cache"
nb_execution_timeout = 900  # seconds per cell, on slow machines too
nb_execution_raise_on_error = True
nb_merge_streams = True
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
# What is copied: commands and code without their prompts and without output.
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# Single backticks in docstrings mark code.
default_role = "literal"
autodoc_type_aliases = SHORT
autodoc_typehints = "description"
python_use_unqualified_type_names = True
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
intersphinx_mapping = _inventories(
    {
        "python": "https://docs.python.org/3/",
        "torch": "https://docs.pytorch.org/docs/stable/",
        "numpy": "https://numpy.org/doc/stable/",
        "pillow": "https://pillow.readthedocs.io/en/stable/",
    }
)
# Without a network there are no inventories of these libraries to look names up in.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|nn|numpy|np|PIL|os|pathlib|collections|typing)\..*|Path|Tensor")
]


def setup(app: Any) -> None:
    """Connects what makes links lead to where they should."""
    app.connect("source-read", _to_the_page)
    app.connect("missing-reference", _to_the_type)
    app.connect("build-finished", _try_it)


def _try_it(app: Any, error: Any) -> None:
    """With `sphinx-build -t try`, adds the page that segments photos in the browser."""
    if error is None and app.tags.has("try"):
        model = edgeseg.create_model("fpn_aspp_mobilenetv2_tv_edgeailite.camvid").eval()
        edgeseg.export_web(model, app.outdir / "try", size=(360, 480), bundle=True)


def _to_the_type(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """The link of a type in an annotation, which classes show by its short name."""
    name = SHORT.get(node["reftarget"], node["reftarget"])
    place = env.get_domain("py").objects.get(name)
    if name not in TYPES or place is None:
        return None
    return make_refnode(
        app.builder, node["refdoc"], place.docname, place.node_id, shown
    )


def _to_the_page(_: Any, __: str, content: list[str]) -> None:
    content[0] = content[0].replace("(../MODEL_ZOO.md", "(zoo.md")
