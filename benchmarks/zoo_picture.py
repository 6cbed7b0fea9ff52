"""The picture of MODEL_ZOO.md: mIoU against multiply-accumulates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo_figures import Figures

import edgeseg


class Point(NamedTuple):
    """One network in a panel."""

    gmacs: float
    miou: float
    text: str


def draw(zoo: Figures, path: Path) -> None:
    """Draws one panel per dataset of the published table, and one of the weights that were measured here."""
    from matplotlib.figure import Figure

    datasets = list(dict.fromkeys(row["dataset"] for row in zoo["rows"]))
    figure = Figure(figsize=(15, 6), layout="constrained")
    widths = [*(2.2 if dataset == "Cityscapes" else 1 for dataset in datasets), 1]
    panels = figure.subplots(1, len(widths), width_ratios=widths)
    for axis, dataset in zip(panels, datasets, strict=False):
        rows = [row for row in zoo["rows"] if row["dataset"] == dataset and row["miou"]]
        own = [_published(row) for row in rows if row["name"].endswith("edgeailite")]
        peers = [_published(row) for row in rows if not row["name"].endswith("edgeailite")]
        axis.scatter([p.gmacs for p in own], [p.miou for p in own], color="tab:blue")
        axis.scatter([p.gmacs for p in peers], [p.miou for p in peers], color="tab:gray", marker="s")
        _finish(axis, own + peers, f"{dataset}, published")
    measured = _measured(zoo)
    panels[-1].scatter([p.gmacs for p in measured], [p.miou for p in measured], color="tab:red", marker="*", s=120)
    _finish(panels[-1], measured, "CamVid test, measured here, 800x600")
    panels[0].set_ylabel("mIoU, percent")
    figure.savefig(path, dpi=90)


def _published(row: Figures) -> Point:
    return Point(float(row["gmacs"]), float(row["miou"]), f"{row['system'].replace('EdgeAILite', '')} {row['width']}")


def _measured(zoo: Figures) -> list[Point]:
    points = []
    for row in zoo["weights"]:
        name, _, tag = row["name"].partition(".")
        if tag == "camvid" and row["miou_measured"]:
            gmacs = edgeseg.complexity(edgeseg.create_model(row["name"]), (600, 800)).gmacs
            points.append(Point(gmacs, row["miou_measured"], name.partition("_")[0]))
    return points


def _finish(axis: Any, points: Sequence[Point], title: str) -> None:
    """Draws the Pareto frontier, names the points, and labels the axes."""
    best, frontier = 0.0, []
    for point in sorted(points, key=lambda point: (point.gmacs, -point.miou)):
        if point.miou > best:
            best = point.miou
            frontier.append((point.gmacs, point.miou))
    axis.plot(*zip(*frontier, strict=True), color="black", linewidth=0.8, drawstyle="steps-post")
    for point in points:
        axis.annotate(point.text, point[:2], fontsize=6, xytext=(3, 3), textcoords="offset points")
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("GMACs", fontsize=8)
    axis.margins(x=0.25)
    axis.grid(alpha=0.3)
