"""Writes the figures of the demand benchmark into a document, between two marks; the words around them stay."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from longtail.workbench.scenarios import Family

START, END = "<!-- figures: start -->", "<!-- figures: end -->"
KNOWN_ENOUGH = 0.4
"""Known fraction from which a forecast has to beat persistence outright."""


def with_figures(document: str, figures: dict[str, Any]) -> str:
    """The document with the figures of the demand benchmark between the marks.

    Raises:
        ValueError: a mark is missing.
    """
    return replace_figures(document, render(figures))


def replace_figures(document: str, text: str) -> str:
    """The document with everything between the marks replaced.

    Raises:
        ValueError: a mark is missing.
    """
    head, start, rest = document.partition(START)
    _, end, tail = rest.partition(END)
    if not start or not end:
        raise ValueError(f"document: needs the marks {START} and {END}")
    return f"{head}{START}\n\n{text}\n{END}{tail}"


def render(figures: dict[str, Any]) -> str:
    """All figures as Markdown."""
    setting = figures["setting"]
    measured_on = (
        f"{setting['machine']}; {setting['hours']:.0f} h, warm-up {setting['warm_up_hours']:.0f} h, cold start "
        f"{setting['cold_start_seconds']:.0f} s, level {setting['attainment']:g}, seed {setting['seed']}; "
        f"model `{setting['model']}`."
    )
    lines = [
        measured_on,
        "",
        *table(("what", "bar", "measured", "met"), 1, _against_the_bar(figures)),
        "",
        "### Demand one cold start ahead",
        "",
        *table(tuple(title for title, _ in _COLUMNS), 2, _scenario_rows(figures["scenarios"])),
        "",
        "### Mean length after the arrival rate changes",
        "",
        *table(
            ("change", "error", "bias", "worst", "finished requests only"),
            1,
            (
                (
                    change,
                    f"{error['error']:.1%}",
                    f"{error['bias']:+.1%}",
                    f"{error['worst']:.1%}",
                    f"{error['finished_only']:+.0%}",
                )
                for change, error in figures["mean_length_error"].items()
            ),
        ),
    ]
    for what, costs in figures["growth"].items():
        rows = (
            (
                f"{cost['services']:,}",
                f"{cost['cold_start_seconds']:g}",
                "own" if cost["age_bins"] is None else str(cost["age_bins"]),
                f"{cost['ticks']:,}",
                f"{cost['tick_ms']:.1f}",
                "?" if cost["rss_mb"] is None else f"{cost['rss_mb']:.0f}",
            )
            for cost in costs
        )
        titles = ("services", "cold start s", "age bins", "ticks run", "ms a tick", "MB")
        lines += ["", f"### Cost by {what.replace('_', ' ')}", "", *table(titles, 0, rows)]
    return "\n".join(lines) + "\n"


def _against_the_bar(figures: dict[str, Any]) -> Iterable[tuple[str, str, str, str]]:
    judged = [row for row in figures["scenarios"] if row["family"] != Family.STRESS]
    ratios = [row["sqrt_rmse_ratio"] for row in judged]
    known = [row["sqrt_rmse_ratio"] for row in judged if row["known_fraction"] > KNOWN_ENOUGH]
    coverage = [row["coverage"] for row in judged]
    mean_coverage = float(np.mean(coverage))
    worst_length = max(error["error"] for error in figures["mean_length_error"].values())
    reasoning = figures["sqrt_rmse_ratio"]["geometric_mean_reasoning"]
    rss = figures["rss_mb_10000"]

    def row(what: str, bar: str, measured: str, *, met: bool) -> tuple[str, str, str, str]:
        return what, bar, measured, "yes" if met else "**no**"

    yield row("mean length, worst of three changes", "≤ 3 %", f"{worst_length:.1%}", met=worst_length <= 0.03)
    yield row("√-RMSE ratio, geometric mean, reasoning", "≤ 1.00", f"{reasoning:.3f}", met=reasoning <= 1)
    yield row("√-RMSE ratio, worst scenario", "≤ 1.02", f"{max(ratios):.3f}", met=max(ratios) <= 1.02)
    worst_known = max(known, default=0.0)
    yield row("the same where more than .4 is known", "< 1", f"{worst_known:.3f}", met=worst_known < 1)
    in_band = 0.94 <= mean_coverage <= 0.96
    yield row("coverage, mean", ".94–.96", f"{mean_coverage:.3f}", met=in_band)
    yield row("coverage, worst scenario", "≥ .93", f"{min(coverage):.3f}", met=min(coverage) >= 0.93)
    worst_hours = min(one["worst_4h_coverage"] for one in judged)
    yield row("coverage, worst four hours", "≥ .88", f"{worst_hours:.3f}", met=worst_hours >= 0.88)
    for count, limit, key in ((1_000, 100, "tick_ms_1000"), (10_000, 1000, "tick_ms_10000")):
        spent = figures[key]
        yield row(f"one tick, {count:,} services", f"≤ {limit:,} ms", f"{spent:.0f} ms", met=spent <= limit)
    measured = "not known" if rss is None else f"{rss:.0f} MB"
    yield row("memory, 10,000 services", "≤ 400 MB", measured, met=rss is not None and rss <= 400)


_COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("family", lambda row: row["family"]),
    ("scenario", lambda row: row["scenario"]),
    ("mean demand", lambda row: f"{row['mean_demand']:.0f}"),
    ("known", lambda row: f"{row['known_fraction']:.2f}"),
    ("√-RMSE ratio", lambda row: f"{row['sqrt_rmse_ratio']:.3f}"),
    ("√-bias", lambda row: f"{row['sqrt_bias']:+.3f}"),
    ("coverage", lambda row: f"{row['coverage']:.3f}"),
    ("worst 4 h", lambda row: f"{row['worst_4h_coverage']:.3f}"),
    ("pinball ratio", lambda row: f"{row['pinball_ratio']:.3f}"),
    ("baseline's coverage", lambda row: f"{row['baseline_coverage']:.3f}"),
)


def _scenario_rows(rows: Sequence[dict[str, Any]]) -> Iterable[Sequence[str]]:
    return ([show(row) for _, show in _COLUMNS] for row in rows)


def table(titles: Sequence[str], left: int, rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """A Markdown table; the first ``left`` columns to the left, the others to the right."""
    yield "| " + " | ".join(titles) + " |"
    yield "|" + "|".join("---" if index < left else "---:" for index in range(len(titles))) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in rows)
