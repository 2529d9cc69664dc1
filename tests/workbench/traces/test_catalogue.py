import numpy as np
import pytest

from longtail.errors import TraceError
from longtail.workbench.traces import Trace, catalogue

DATA = catalogue.data_directory()
needs_traces = pytest.mark.skipif(DATA is None, reason="no real traces here: LONGTAIL_DATA names their directory")


def test_the_environment_names_the_directory(tmp_path, monkeypatch):
    monkeypatch.setenv(catalogue.ENVIRONMENT_VARIABLE, str(tmp_path))
    assert catalogue.data_directory() == tmp_path
    monkeypatch.setenv(catalogue.ENVIRONMENT_VARIABLE, str(tmp_path / "gone"))
    assert catalogue.data_directory() is None


def test_clients_of_a_trace_without_clients_are_refused():
    trace = Trace("t", np.zeros(1), np.ones(1, int), np.ones(1, int))
    with pytest.raises(TraceError, match="no column client"):
        catalogue.clients_of(trace, [1], name="some")


def test_clients_that_sent_nothing_are_refused():
    trace = Trace("t", np.zeros(2), np.ones(2, int), np.ones(2, int), client=np.array([1, 2]))
    assert len(catalogue.clients_of(trace, [2], name="some")) == 1
    with pytest.raises(TraceError, match="sent no request"):
        catalogue.clients_of(trace, [3], name="some")


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(catalogue.r1_day, id="R1 day"),
        pytest.param(catalogue.r1_lengths, id="R1 lengths"),
        pytest.param(lambda data: catalogue.control_day(data, "azure-code", seed=1), id="control"),
        pytest.param(
            lambda data: catalogue.language_pool_day(
                data, "m-large", day=0, mean_per_second=1.0, lengths=catalogue.r1_lengths(data), seed=1
            ),
            id="language pool",
        ),
    ],
)
def test_an_empty_directory_is_refused_by_the_file_it_lacks(read, tmp_path):
    with pytest.raises(TraceError, match=r"cannot be read"):
        read(tmp_path)


@needs_traces
@pytest.mark.traces
def test_the_r1_day_is_the_published_one():
    day = catalogue.r1_day(DATA)
    assert len(day) == 1_383_669
    assert day.output_tokens.mean() == pytest.approx(1527, abs=3)
    assert day.output_tokens.max() == 32_768
    assert catalogue.r1_lengths(DATA).mean_tokens == pytest.approx(1527, abs=1)


@needs_traces
@pytest.mark.traces
def test_a_language_pool_keeps_its_rate_and_its_bursts_and_repeats_by_seed():
    lengths = catalogue.r1_lengths(DATA)
    pools = [
        catalogue.language_pool_day(DATA, "m-large", day=0, mean_per_second=1.4, lengths=lengths, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert pools[0].arrival_seconds.tolist() == pools[1].arrival_seconds.tolist()
    assert pools[0].arrival_seconds.tolist() != pools[2].arrival_seconds.tolist()
    assert len(pools[0]) / 86_400 == pytest.approx(1.4, rel=0.1)
    counts = np.histogram(pools[0].arrival_seconds, np.arange(0, 86_401, 60))[0]
    assert counts.var() / counts.mean() > 5  # a Poisson process would have 1


@needs_traces
@pytest.mark.traces
def test_a_day_with_gaps_in_the_data_is_refused():
    with pytest.raises(TraceError, match="day 3 is not whole"):
        catalogue.language_pool_day(
            DATA, "m-mid", day=3, mean_per_second=1.0, lengths=catalogue.r1_lengths(DATA), seed=1
        )


@needs_traces
@pytest.mark.traces
@pytest.mark.parametrize(
    ("source", "per_second", "mean_tokens"),
    [("azure-conversation", 5.53, 211), ("azure-code", 2.57, 28), ("mooncake", 3.40, 343)],
)
def test_controls_last_a_day_at_their_published_rate(source, per_second, mean_tokens):
    day = catalogue.control_day(DATA, source, seed=1)
    assert len(day) / 86_400 == pytest.approx(per_second, rel=0.01)
    assert day.output_tokens.mean() == pytest.approx(mean_tokens, rel=0.01)
    assert day.span_seconds == pytest.approx(86_400, abs=120)
