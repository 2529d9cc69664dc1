"""The results against the bars: one number a policy and trace, and where longtail's cost goes."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from longtail.workbench.bench_cost import machine_in_words
from longtail.workbench.evaluation.frontier import Plan, Results
from longtail.workbench.evaluation.journal import code_digest
from longtail.workbench.evaluation.rows import DEFAULT, HINDSIGHT, Row, at_attainment
from longtail.workbench.evaluation.trial import ORACLES
from longtail.workbench.fleet.pilots import LONGTAIL
from longtail.workbench.scenarios import Family

Table = tuple[str, Sequence[str], int, list[list[str]]]
"""(title, titles of the columns, columns set to the left, rows)."""
BOUND_BAR, NEAR_BAR, CONTROL_BAR = 1.30, 0.5, 1.02


@dataclass(frozen=True, slots=True)
class Summary:
    """What a reader wants to know first."""

    setting: str
    target_percent: float
    tables: Sequence[Table]


def summarise(results: Results, plan: Plan) -> Summary:
    """At 99 %, where that was asked for, else at the first attainment."""
    asked = plan.attainments_percent
    target = 99.0 if 99.0 in asked else asked[0]
    said = _Said(results, target)
    first = plan.cases[0]
    setting = (
        f"{machine_in_words()}; {len(results.cases)} traces, {plan.seeds} seed(s), at most "
        f"{first.measured_seconds / 3600:g} h measured after {first.warm_up_seconds / 3600:g} h of warm-up; cold start "
        f"{first.pool.cold_start_seconds:g} s ± 20 %, wait at most {first.pool.objective_seconds:g} s, peers' drain "
        f"{first.pool.drain.value}, routing {first.pool.routing.value}; code `{code_digest()}`."
    )
    tables = [said.against_the_bars(), said.by_trace(), said.everybody(), said.split(), said.regret()]
    return Summary(setting, target, [table for table in tables if table[3]])


def as_json(results: Results, summary: Summary) -> dict[str, Any]:
    """Everything, as plain values."""
    return {
        "setting": summary.setting,
        "rows": [asdict(row) for row in results.rows],
        "runs": [asdict(row) for row in results.runs],
        "bounds": [{"trace": trace, "seed": seed, **asdict(bound)} for (trace, seed), bound in results.bounds.items()],
        "summary": {
            title: [dict(zip(titles, row, strict=True)) for row in rows] for title, titles, _, rows in summary.tables
        },
    }


def markdown(summary: Summary) -> str:
    """The tables for a document."""
    lines = [summary.setting, ""]
    for title, titles, left, rows in summary.tables:
        rule = "|" + "|".join("---" if place < left else "---:" for place in range(len(titles))) + "|"
        lines += [f"### {title}", "", "| " + " | ".join(titles) + " |", rule]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive numbers; NaN of none.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    logs = np.log(list(values))
    return float(np.exp(logs.mean())) if len(logs) else float("nan")


class _Said:
    """Means over seeds."""

    def __init__(self, results: Results, target: float) -> None:
        self.results, self.target = results, target
        self.traces = list(results.cases)
        self.reasoning = [name for name in self.traces if results.families[name] != Family.CONTROL.value]
        self.policies = list(dict.fromkeys(row.policy for row in results.runs))
        self.peers = [policy for policy in self.policies if policy != LONGTAIL and policy not in ORACLES]

    def _rows(self, trace: str, policy: str, tuned: str) -> list[Row]:
        return [
            row
            for row in self.results.rows
            if (row.trace, row.policy, row.tuned) == (trace, policy, tuned)
            and (tuned == DEFAULT or row.attainment_target_percent == self.target)
        ]

    def cost(self, trace: str, policy: str, tuned: str = HINDSIGHT) -> float:
        """Cost over bound; NaN where the target is not reached by any seed."""
        return _mean(row.cost_over_bound for row in self._rows(trace, policy, tuned))

    def best_peer(self, trace: str) -> tuple[str, float]:
        """The cheapest of the peers."""
        costs = {peer: self.cost(trace, peer) for peer in self.peers}
        known = {peer: cost for peer, cost in costs.items() if not np.isnan(cost)}
        return min(known.items(), key=lambda item: item[1]) if known else ("none", float("nan"))

    def default_over_best_peer(self, trace: str) -> float:
        """Longtail's cost at its defaults over that of the cheapest peer that did as well, mean over seeds."""
        ratios = []
        for default in self._rows(trace, LONGTAIL, DEFAULT):
            runs = [row for row in self.results.runs if (row.trace, row.seed) == (trace, default.seed)]
            costs = [
                found.gpu_hours
                for peer in self.peers
                if (found := at_attainment([r for r in runs if r.policy == peer], default.attainment_percent))
            ]
            if costs:
                ratios.append(default.gpu_hours / min(costs))
        return _mean(ratios)

    def by_trace(self) -> Table:
        """Longtail beside the best peer."""
        ours = ("default: attained", "default: cost", "longtail at target")
        others = ("best peer", "its cost", "ours over it", "oracle of the rate", "oracle of arrivals")
        titles = ("trace", *ours, *others, "bound with waiting")
        rows = []
        for trace in self.traces:
            default = self._rows(trace, LONGTAIL, DEFAULT)
            peer, cost = self.best_peer(trace)
            cheapest = self.cost(trace, LONGTAIL)
            waiting = _mean(
                bound.waiting_gpu_hours / bound.at_once_gpu_hours
                for (name, _), bound in self.results.bounds.items()
                if name == trace
            )
            rows.append(
                [
                    trace,
                    _number(_mean(row.attainment_percent for row in default), "{:.2f} %"),
                    _number(_mean(row.cost_over_bound for row in default)),
                    _number(cheapest),
                    peer,
                    _number(cost),
                    _number(100 * (cheapest / cost - 1), "{:+.1f} %"),
                    *(_number(self.cost(trace, oracle)) for oracle in ("oracle-rate", "oracle-arrivals")),
                    _number(waiting),
                ]
            )
        title = f"Cost over the bound at {self.target:g} % of requests within the wait"
        return title, titles, 1, rows if LONGTAIL in self.policies else []

    def everybody(self) -> Table:
        """Every policy on every trace, the cheapest first."""
        means = {policy: geometric_mean(self._filled(policy)) for policy in self.policies}
        order = sorted(self.policies, key=lambda policy: (np.isnan(means[policy]), means[policy], policy))
        rows = [
            [
                policy,
                *(_number(self.cost(trace, policy)) for trace in self.traces),
                _number(means[policy]),
                f"{sum(row.killed_requests for row in self._all(policy)):,.0f}",
                f"{sum(row.wasted_tokens for row in self._all(policy)):,.0f}",
            ]
            for policy in order
        ]
        titles = ("policy, tuned in hindsight", *self.traces, "geometric mean, reasoning", "killed", "wasted tokens")
        return f"Every policy at {self.target:g} %", titles, 1, rows

    def _filled(self, policy: str) -> list[float]:
        """Costs on the reasoning traces; a policy that misses the target on one has no mean."""
        return [self.cost(trace, policy) for trace in self.reasoning] or [float("nan")]

    def _all(self, policy: str) -> list[Row]:
        return [row for trace in self.traces for row in self._rows(trace, policy, HINDSIGHT)]

    def split(self) -> Table:
        """Where longtail's cost goes, at its defaults."""
        rows = []
        for trace in self.traces:
            default = self._rows(trace, LONGTAIL, DEFAULT)
            if default:
                parts = [
                    _mean(getattr(row, f"{what}_gpu_hours") / row.bound_gpu_hours for row in default)
                    for what in ("serving", "starting", "draining")
                ]
                actions = _mean(row.scaling_actions for row in default)
                rows.append([trace, *map(_number, parts), _number(sum(parts)), f"{actions:.0f}",
                             f"{_mean(row.wait_p99_seconds for row in default):.1f}",
                             f"{sum(row.killed_requests for row in default):.0f}"])  # fmt: skip
        titles = ("trace", "serving", "starting", "draining", "all", "scaling actions", "p99 wait s", "killed")
        return "Where longtail's cost goes, at its defaults, over the bound", titles, 1, rows

    def regret(self) -> Table:
        """What knowing more would save, step by step."""
        rows = []
        for trace in self.traces:
            arrivals, rate = self.cost(trace, "oracle-arrivals"), self.cost(trace, "oracle-rate")
            ours = self.cost(trace, LONGTAIL)
            steps = (arrivals - 1, rate - arrivals, ours - rate)
            rows.append(
                [trace, *(_number(100 * step, "{:+.1f} %") for step in steps), _number(100 * (ours - 1), "{:.1f} %")]
            )
        known = set(ORACLES) <= set(self.policies) and LONGTAIL in self.policies
        titles = ("trace", "whole replicas, starts, drains", "bursts and chance", "forecast and drain rule", "regret")
        return f"Regret of longtail at {self.target:g} %, in parts of the bound", titles, 1, rows if known else []

    def against_the_bars(self) -> Table:
        """The bars of the published claim, met or missed."""
        if LONGTAIL not in self.policies:
            return "Against the bars", (), 0, []
        rows: list[list[str]] = []

        def add(what: str, bar: str, measured: str, *, met: bool) -> None:
            rows.append([what, bar, measured, "yes" if met else "**no**"])

        for trace in self.traces:
            ratio = self.default_over_best_peer(trace)
            limit = CONTROL_BAR if trace not in self.reasoning else 1.0
            what = f"{trace}: default's cost over the best peer's at the attainment it reached"
            add(what, f"≤ {limit:.2f}", _number(ratio), met=ratio <= limit)
        for trace in self.traces:
            peer, cost = self.best_peer(trace)
            ratio = self.cost(trace, LONGTAIL) / cost
            control = trace not in self.reasoning
            limit = CONTROL_BAR if control else 1.0
            bar = f"≤ {limit:.2f}" if control else "< 1"
            add(f"{trace}: with its objective varied, over {peer}", bar, _number(ratio),
                met=ratio <= limit if control else ratio < limit)  # fmt: skip
        mean = geometric_mean(self._filled(LONGTAIL))
        add(
            "cost over the bound, geometric mean, reasoning", f"≤ {BOUND_BAR:.2f}", _number(mean), met=mean <= BOUND_BAR
        )
        default = [row for trace in self.traces for row in self._rows(trace, LONGTAIL, DEFAULT)]
        worst = max(
            (abs(_mean(r.attainment_percent for r in default if r.trace == t) - 99.0) for t in self.traces), default=0.0
        )
        add(
            "attainment at the defaults, farthest from 99 %",
            f"≤ {NEAR_BAR} points",
            _number(worst),
            met=worst <= NEAR_BAR,
        )
        killed = sum(row.killed_requests for row in default)
        add("requests killed at the defaults", "0", f"{killed:.0f}", met=killed == 0)
        return "Against the bars", ("what", "bar", "measured", "met"), 1, rows


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return float(np.mean(known)) if known else float("nan")


def _number(value: float, form: str = "{:.3f}") -> str:
    return "–" if np.isnan(value) else form.format(value)
