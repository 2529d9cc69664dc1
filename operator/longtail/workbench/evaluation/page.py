"""One HTML page with everything: pictures inside, tables that sort at a click, nothing loaded from anywhere."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from longtail.workbench.evaluation.frontier import Results
from longtail.workbench.evaluation.rows import Row
from longtail.workbench.evaluation.summary import Summary

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --head: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2.2rem }
p.setting { color: #777; margin-top: 0 }
img { max-width: 100%; height: auto; background: white; border-radius: 4px }
div.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th { background: var(--head); cursor: pointer; user-select: none; white-space: normal }
th.left, td.left { text-align: left }
th[aria-sort=ascending]::after { content: " ▲" } th[aria-sort=descending]::after { content: " ▼" }
tr.ours td { font-weight: 600 }
td.no { color: #c22; font-weight: 600 }
"""

_ABOUT = (
    "Peers have their one knob tuned in hindsight; longtail is shown at its defaults (stars) and with its objective "
    "varied. Costs are GPU-hours, starting and draining included, over the least that anybody could have spent who "
    "knew the future and let nobody wait."
)

_SORT = """
for (const head of document.querySelectorAll("th")) {
  head.tabIndex = 0;
  const sort = () => {
    const table = head.closest("table"), place = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => {
      const text = row.cells[place].textContent.trim();
      const number = parseFloat(text.replace(/,/g, ""));
      return Number.isNaN(number) ? text : number;
    };
    const known = row => !["–", ""].includes(row.cells[place].textContent.trim());
    const rows = [...table.tBodies[0].rows].sort((one, other) => {
      if (known(one) !== known(other)) return known(one) ? -1 : 1;   // what is not known comes last either way
      const [a, b] = [value(one), value(other)];
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows);
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}
"""


def write_page(path: Path, results: Results, summary: Summary, pictures: Mapping[str, bytes]) -> None:
    """Write the report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(results, summary, pictures), encoding="utf-8")


def page(results: Results, summary: Summary, pictures: Mapping[str, bytes]) -> str:
    """The whole page as text."""
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>longtail frontier</title><style>{_STYLE}</style></head><body>",
        "<h1>What a kept promise costs</h1>",
        f"<p class=setting>{html.escape(summary.setting.replace('`', ''))}</p>",
        f"<p>{_ABOUT}</p>",
    ]
    for name, picture in pictures.items():
        data = base64.b64encode(picture).decode()
        parts.append(f'<p><img alt="{html.escape(name)}" src="data:image/png;base64,{data}"></p>')
    for title, titles, left, rows in summary.tables:
        parts.append(_table(title, titles, left, rows))
    parts += [_table(*_all_rows(results.rows)), f"<script>{_SORT}</script></body></html>"]
    return "\n".join(parts)


def _all_rows(rows: Sequence[Row]) -> tuple[str, Sequence[str], int, list[list[str]]]:
    titles = ("trace", "policy", "tuned", "seed", "knob", "target %", "attained %", "GPU-hours", "bound",
              "cost over bound", "killed", "wasted tokens", "actions", "p50 s", "p95 s", "p99 s")  # fmt: skip
    shown = [
        [
            row.trace,
            row.policy,
            row.tuned,
            str(row.seed),
            "default" if row.knob is None else f"{row.knob:g}",
            f"{row.attainment_target_percent:g}",
            f"{row.attainment_percent:.2f}",
            f"{row.gpu_hours:.1f}",
            f"{row.bound_gpu_hours:.1f}",
            f"{row.cost_over_bound:.3f}",
            f"{row.killed_requests:,.0f}",
            f"{row.wasted_tokens:,.0f}",
            f"{row.scaling_actions:.0f}",
            *(f"{wait:.1f}" for wait in (row.wait_p50_seconds, row.wait_p95_seconds, row.wait_p99_seconds)),
        ]
        for row in rows
    ]
    return "All rows", titles, 3, shown


def _table(title: str, titles: Sequence[str], left: int, rows: Sequence[Sequence[str]]) -> str:
    def cell(tag: str, text: str, place: int) -> str:
        kind = "left" if place < left else "no" if text == "**no**" else ""
        attribute = f' class="{kind}"' if kind else ""
        return f"<{tag}{attribute}>{html.escape(text.strip('*'))}</{tag}>"

    head = "".join(cell("th", text, place) for place, text in enumerate(titles))
    body = "".join(
        f"<tr{' class=ours' if 'longtail' in row[:2] else ''}>"
        + "".join(cell("td", text, place) for place, text in enumerate(row))
        + "</tr>\n"
        for row in rows
    )
    inside = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"
    return f"<h2>{html.escape(title)}</h2><div class=wide>{inside}</div>"
