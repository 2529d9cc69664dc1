"""What sharing a quota saved, in words: the bar, the tables, and the picture of a day. The picture needs matplotlib."""

from collections.abc import Iterable, Sequence

from longtail.workbench.bench_budget import BAR_PERCENT, HOUR, NAMES, Outcome, Pair, Use
from longtail.workbench.bench_cost import digest_of_model, machine_in_words
from longtail.workbench.picture import plotting, png


def render(outcome: Outcome) -> str:
    """All figures as Markdown."""
    plan, judged = outcome.plan, outcome.judged
    gpus = plan.size.gpus
    met = "yes" if judged.saving_percent >= BAR_PERCENT else "**no**"
    what = f"fewer GPUs than fixed halves of {judged.half.replicas * gpus // 2} each, at equal attainment of both"
    lines = [
        f"{machine_in_words()}; seed {plan.draw}; model `{digest_of_model()}`.",
        "",
        *_head(("what", "bar", "measured", "met")),
        f"| {what} | ≥ {BAR_PERCENT:g} % | {judged.saving_percent:.1f} % | {met} |",
        "",
    ]
    apart, together = (replicas * gpus for replicas in outcome.always_on)
    if together:
        least = f"two pools of {apart // 2} GPUs serve 99 % in time, and one pool of {together} for both"
        lines += [f"Without any scaling, all replicas always on: {least}, {1 - together / apart:.0%} fewer.", ""]
    titles = (
        "fixed halves, GPUs",
        *(f"in time, {name}" for name in NAMES),
        "GPU-hours",
        "one quota that keeps both, GPUs",
        *(f"in time, {name}" for name in NAMES),
        "GPU-hours",
        "fewer GPUs",
    )
    lines += ["### Fixed halves, and the least quota that serves both as well", "", *_head(titles)]
    for match in outcome.matches:
        row = [f"2 × {match.half.replicas * gpus // 2}", *_attained(match.half), f"{match.half.gpu_hours:,.0f}"]
        if match.quota is None:
            row += ["none that was tried", "", "", "", ""]
        else:
            row += [f"{match.quota.replicas * gpus}", *_attained(match.quota), f"{match.quota.gpu_hours:,.0f}"]
            row.append(f"{match.saving_percent:.1f} %")
        lines.append("| " + " | ".join(row) + " |")
    titles = ("quota, GPUs", *(f"in time, {n}" for n in NAMES), "GPU-hours", "most held", "turns", "killed requests")
    lines += ["", "### Every quota that was tried", "", *_head(titles)]
    lines += ["| " + " | ".join(_quota_row(pair, gpus)) + " |" for pair in outcome.shared]
    return "\n".join(lines) + "\n"


def _quota_row(pair: Pair, gpus: int) -> Iterable[str]:
    hours, most = f"{pair.gpu_hours:,.0f}", f"{pair.most_gpus}"
    return (
        f"{pair.replicas * gpus}",
        *_attained(pair),
        hours,
        most,
        f"{pair.direction_changes}",
        f"{pair.killed_requests}",
    )


def _attained(pair: Pair) -> tuple[str, str]:
    one, other = (f"{100 * attainment:.2f} %" for attainment in pair.attainment)
    return one, other


def _head(titles: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(titles) + " |", "|" + "|".join("---:" for _ in titles) + "|"]


def draw_use(outcome: Outcome) -> bytes:
    """A PNG of who held the GPUs over the day, of the least quota that serves both as well as the judged halves.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    plot = plotting()
    plan, judged = outcome.plan, outcome.judged
    replicas = (judged.quota or outcome.shared[-1]).replicas
    use, halves = outcome.uses[replicas], judged.half.replicas * plan.size.gpus
    figure, axis = plot.subplots(figsize=(11, 3.8), layout="constrained")
    shown = use.at_seconds >= plan.measured_from_seconds
    hours = (use.at_seconds[shown] - plan.measured_from_seconds) / HOUR
    axis.stackplot(hours, *use.gpus[shown].T, labels=NAMES, colors=("#9ecae1", "#fdae6b"), step="post")
    quota = replicas * plan.size.gpus
    axis.axhline(quota, color="black", linewidth=1.2, linestyle="--", label=f"quota: {quota} GPUs")
    axis.axhline(halves, color="0.5", linewidth=1.2, linestyle=":", label=f"fixed halves: {halves} GPUs")
    axis.set_xlabel("hours")
    axis.set_ylabel("GPUs held")
    axis.set_xlim(0, float(hours[-1]))
    axis.set_ylim(0)
    axis.legend(loc="lower right", ncols=4, fontsize=9, frameon=True)
    axis.set_title(
        f"One quota, two services with opposite peaks: {100 * _mean(use, quota):.0f} % of it in use on average",
        loc="left",
        fontsize=11,
    )
    return png(plot, figure)


def _mean(use: Use, quota: int) -> float:
    return float(use.gpus.sum(axis=1).mean()) / quota
