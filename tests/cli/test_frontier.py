import json

import numpy as np
import pytest
from click.testing import CliRunner

from longtail.cli.main import cli


@pytest.fixture
def trace(tmp_path):
    rng = np.random.default_rng(3)
    path = tmp_path / "mine.npz"
    tokens = rng.integers(200, 1000, 400)
    np.savez(path, arrival_seconds=np.sort(rng.uniform(0, 1800, 400)), input_tokens=tokens, output_tokens=tokens)
    return path


def run(*arguments):
    return CliRunner().invoke(cli, ["frontier", *map(str, arguments)])


def test_a_trace_of_ones_own_becomes_rows_a_page_and_a_document(trace, tmp_path):
    out, page, document = tmp_path / "out.json", tmp_path / "out.html", tmp_path / "figures.md"
    document.write_text("before\n<!-- figures: start -->\nfigures of yesterday\n<!-- figures: end -->\nafter\n")
    pytest.importorskip("matplotlib")
    result = run(trace, "--policies", "keda-running", "--seeds", 1, "--warm-up-hours", 0.1, "--hours", 0.4,
                 "--slots", 6, "--max-runs", 2, "--workers", 1, "--json", out, "--report", page,
                 "--markdown", document)  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())["rows"]
    assert {row["policy"] for row in rows} <= {"keda-running"}
    assert len(out.with_suffix(".journal.jsonl").read_text().splitlines()) == 3  # two runs and the bounds
    assert page.read_text().startswith("<!doctype html>")
    assert "of yesterday" not in document.read_text()
    assert "### Every policy at 99 %" in document.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(("--attainment", "95,x"), "'95,x' is not a list of numbers such as 95,99,99.5", id="not a number"),
        pytest.param(("--attainment", "100"), "100 is not within 50..100", id="all of them"),
        pytest.param(("--policies", "nobody", "--warm-up-hours", "0.1"), "policies: no 'nobody' among", id="policy"),
        pytest.param(("--warm-up-hours", "2"), "nothing to measure after 7200 s of warm-up", id="too short"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_sentence(trace, arguments, says):
    result = run(trace, "--workers", 1, "--seeds", 1, *arguments)
    assert result.exit_code != 0
    assert says in result.output
    assert "Traceback" not in result.output
