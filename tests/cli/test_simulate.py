"""``longtail simulate`` as people call it."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from longtail.cli.main import cli
from longtail.workbench.traces.lengths import PARAMETRIC_R1


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["simulate", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half an hour of 0.5 requests a second."""
    rng = np.random.default_rng(1)
    columns = (np.sort(rng.uniform(0, 1800, 900)), np.full(900, 100), PARAMETRIC_R1.sample(900, rng))
    path = tmp_path_factory.mktemp("traces") / "half-hour.csv"
    header = "arrival_seconds,input_tokens,output_tokens"
    np.savetxt(path, np.column_stack(columns), delimiter=",", header=header, comments="", fmt=("%.3f", "%d", "%d"))
    return path


def test_a_file_flies_under_longtail_by_default(trace: Path) -> None:
    answer = call(trace)
    assert answer.exit_code == 0, answer.output
    assert "longtail on half-hour" in answer.output
    assert "900 arrived" in answer.output
    assert "0 with 0 tokens" in answer.output


def test_json_on_the_standard_output_holds_the_result_and_nothing_else(trace: Path) -> None:
    answer = call(trace, "--policy", "hpa-running", "--knob", "1.4", "--seed", "5", "--json", "-")
    result = json.loads(answer.stdout)
    assert (result["policy"], result["knob"], result["seed"], result["arrived_requests"]) == (
        "hpa-running",
        1.4,
        5,
        900,
    )
    assert 0.0 <= result["attainment"] <= 1.0
    assert result["gpu_hours"]["total"] == pytest.approx(
        sum(result["gpu_hours"][phase] for phase in ("serving", "starting", "draining"))
    )
    assert result["bound_gpu_hours"] > 0
    assert len(result["timeline"]["at_seconds"]) == len(result["timeline"]["demand"]) == 30


def test_json_goes_into_a_file(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    assert call(trace, "--policy", "fixed-3", "--json", out).exit_code == 0
    assert json.loads(out.read_text(encoding="utf-8"))["policy"] == "fixed-3"


def test_an_oracle_is_told_the_truth(trace: Path) -> None:
    answer = call(trace, "--policy", "oracle-arrivals", "--json", "-")
    assert json.loads(answer.stdout)["attainment"] > 0.95


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["nowhere"], 1, "nowhere: no such file, and no such scenario among steady", id="trace"),
        pytest.param(["missing.csv"], 1, "missing.csv: cannot be read: No such file", id="file"),
        pytest.param(["steady", "--policy", "magic"], 1, "policy: no 'magic' among longtail", id="policy"),
        pytest.param(["steady", "--knob", "7"], 1, "knob: attainment asked for", id="knob"),
        pytest.param(["steady", "--slots", "0"], 2, "--slots", id="slots"),
        pytest.param(["steady", "--min-replicas", "9", "--max-replicas", "2"], 2, "got 9 and 2", id="bounds"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_sentence(arguments: list[str], code: int, says: str) -> None:
    answer = call(*arguments)
    assert answer.exit_code == code
    assert says in answer.output
    assert "Traceback" not in answer.output


def test_a_file_that_cannot_be_written_is_said_so(trace: Path, tmp_path: Path) -> None:
    answer = call(trace, "--policy", "fixed-3", "--json", tmp_path / "no" / "where.json")
    assert answer.exit_code == 1
    assert "cannot be written: No such file or directory" in answer.output
