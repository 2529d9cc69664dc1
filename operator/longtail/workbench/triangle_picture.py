"""The picture of a triangle: cost against waiting, one line for each level of effort. Needs matplotlib."""

from collections.abc import Sequence

from longtail.workbench.picture import plotting, png
from longtail.workbench.triangle import Point, best


def draw(points: Sequence[Point], *, title: str, chosen: Point | None = None) -> bytes:
    """A PNG.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    plot = plotting()
    figure, axis = plot.subplots(figsize=(9, 5.5), layout="constrained")
    shown = best(points)
    for level in dict.fromkeys(point.level for point in points):
        mine = sorted((point for point in shown if point.level == level), key=lambda point: point.row.gpu_hours)
        saved = mine[0].saving
        cut = "" if saved.length_ratio >= 1.0 else f", {100 * saved.cut_share:.0f} % of the answers cut"
        x = [point.row.mean_wait_seconds for point in mine]
        y = [point.row.gpu_hours for point in mine]
        axis.plot(x, y, marker="o", label=f"{level.name}{cut}")
        for point in mine:
            here = (point.row.mean_wait_seconds, point.row.gpu_hours)
            axis.annotate(f"{point.attainment_percent}", here, textcoords="offset points", xytext=(5, 4), fontsize=8)
    if chosen is not None:
        axis.plot(chosen.row.mean_wait_seconds, chosen.row.gpu_hours, "*", color="black", markersize=16)
    # Waits go from nothing to minutes, and most of the choice is near nothing.
    axis.set_xscale("symlog", linthresh=0.1)
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("mean wait for a slot, seconds")
    axis.set_ylabel("GPU-hours")
    axis.set_title(f"{title}: cost against waiting, by level of effort (numbers: attainmentPercent)", fontsize=10)
    axis.legend(frameon=False)
    return png(plot, figure)
