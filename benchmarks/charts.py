"""Charts as SVG files that can be read on a phone, on a light page and on a dark one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 5.0  # inches: on a phone of 360 CSS pixels, 12 points are shown as 9
FONT = 12
INK, GRID, BLUE, ORANGE, GRAY = "#1f2328", "#d0d7de", "#0969da", "#bc4c00", "#6e7781"
# Colours on dark pages.
DARK = {INK: "#e6edf3", GRID: "#3d444d", BLUE: "#58a6ff", ORANGE: "#f0883e", GRAY: "#9198a1"}


def chart(heights: list[float]) -> tuple[Figure, list[Any]]:
    """Creates a figure of panels below each other, of these heights in inches."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams.update(
        {
            "font.size": FONT, "axes.titlesize": FONT, "svg.fonttype": "none", "svg.hashsalt": "edgeseg",
            "font.family": "sans-serif", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
            "xtick.color": INK, "ytick.color": INK, "grid.color": GRID,
        }
    )  # fmt: skip
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, list(panels)


def save(figure: Figure, path: Path) -> None:
    """Writes an SVG file without a background, whose colours follow the page's; the same file for the same figures."""
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    rules = [f"text {{ fill: {DARK[INK]} !important }}"]
    for light, dark in DARK.items():
        for what in ("fill", "stroke"):
            rules.append(f'[style*="{what}: {light}"] {{ {what}: {dark} !important }}')
    style = f"<style>@media (prefers-color-scheme: dark) {{ {' '.join(rules)} }}</style>"
    before, end, after = path.read_text().partition("<defs>")
    path.write_text(f"{before}{style}\n {end}{after}")
