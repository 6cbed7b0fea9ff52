"""The picture of MODEL_ZOO.md: published mIoU against multiply-accumulates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from charts import BLUE, GRAY, INK, chart, save
from zoo_figures import Figures

HEIGHTS = {"Cityscapes": 9.0}
HEIGHT = 3.2  # of other datasets


class Point(NamedTuple):
    """One network in a panel."""

    gmacs: float
    miou: float
    text: str
    own: bool


def draw(zoo: Figures, path: Path) -> None:
    """Draws one panel per dataset of the published table."""
    points: dict[str, list[Point]] = {}
    for row in zoo["rows"]:
        if row["miou"] and not row["system"].endswith("-QAT"):
            text = row["system"].replace("EdgeAILite", "").replace("MobileNet", "MN").replace("RegNet", "RN")
            text = text.replace("+", " ", 1).replace("V3Plus", "V3+")
            name = f"{text} {row['width']}" if row["dataset"] == "Cityscapes" else text
            point = Point(float(row["gmacs"]), float(row["miou"]), name, row["name"].endswith("edgeailite"))
            points.setdefault(row["dataset"], []).append(point)
    figure, panels = chart([HEIGHTS.get(dataset, HEIGHT) for dataset in points])
    for panel, (dataset, networks) in zip(panels, points.items(), strict=True):
        _panel(panel, networks, f"{dataset}: published mIoU, percent")
    panels[-1].set_xlabel("GMACs (convolutions)")
    save(figure, path)


def _panel(axis: Any, points: Sequence[Point], title: str) -> None:
    """Draws the points with their names."""
    from adjustText import adjust_text

    for own, color, marker in ((True, BLUE, "o"), (False, GRAY, "s")):
        some = [point for point in points if point.own is own]
        axis.scatter([p.gmacs for p in some], [p.miou for p in some], color=color, marker=marker, s=24)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_title(title, loc="left")
    axis.margins(x=0.3, y=0.1)
    axis.grid(alpha=0.5)
    texts = [axis.text(*point[:2], point.text, color=INK) for point in points]
    axis.figure.draw_without_rendering()
    # A limit of steps, since one of seconds would give another chart each time.
    adjust_text(
        texts, ax=axis, iter_lim=500, time_lim=None, min_arrow_len=1, force_text=(0.1, 0.3), expand=(1.02, 1.2),
        arrowprops={"arrowstyle": "-", "color": GRAY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
    )  # fmt: skip
