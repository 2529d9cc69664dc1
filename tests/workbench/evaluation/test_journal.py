from dataclasses import replace

from longtail.workbench.evaluation.journal import Journal, code_digest
from longtail.workbench.evaluation.rows import Row

ONE = Row(
    **dict.fromkeys(
        ("serving_gpu_hours", "starting_gpu_hours", "draining_gpu_hours", "bound_gpu_hours", "cost_over_bound",
         "wasted_tokens", "killed_requests", "scaling_actions", "direction_changes", "wait_p50_seconds",
         "wait_p95_seconds", "wait_p99_seconds"), 1.5,
    ),
    trace="t", policy="p", seed=1, knob=0.5, attainment_percent=99.0, gpu_hours=10.0,
)  # fmt: skip
KEY = {"case": "c", "policy": "p", "knob": 0.5, "seed": 1}


def test_a_run_is_found_again_by_another_process(tmp_path):
    path = tmp_path / "deep" / "runs.jsonl"
    Journal(path).add(KEY, ONE)
    Journal(path).add({"bound": 1}, [1.0, 2.0])
    again = Journal(path)
    assert again.find_row({**dict(reversed(KEY.items()))}) == ONE
    assert again.find({"bound": 1}) == [1.0, 2.0]
    assert again.find_row({**KEY, "knob": None}) is None


def test_a_line_that_was_cut_off_is_as_if_it_had_not_been_written(tmp_path):
    path = tmp_path / "runs.jsonl"
    journal = Journal(path)
    journal.add(KEY, ONE)
    journal.add({**KEY, "seed": 2}, replace(ONE, seed=2))
    path.write_text(path.read_text()[:-40])
    again = Journal(path)
    assert again.find_row(KEY) == ONE
    assert again.find_row({**KEY, "seed": 2}) is None


def test_a_row_with_other_fields_is_made_anew(tmp_path):
    path = tmp_path / "runs.jsonl"
    Journal(path).add(KEY, ONE)
    path.write_text(path.read_text().replace('"scaling_actions"', '"actions"'))
    assert Journal(path).find_row(KEY) is None


def test_without_a_path_nothing_is_written_and_everything_is_known():
    journal = Journal(None)
    journal.add(KEY, ONE)
    assert journal.find_row(KEY) == ONE


def test_the_code_has_a_digest():
    assert len(code_digest()) == 12
