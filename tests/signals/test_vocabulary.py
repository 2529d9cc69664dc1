"""What is asked: how many queries, under which label names, and that no user's name becomes PromQL."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.errors import SettingsError, SpecError
from longtail.signals import custom, gateway, gpu, sglang, vllm
from longtail.signals.custom import CustomNames
from longtail.signals.observe import Engine, ServiceSignals
from longtail.signals.promql import PART_LABEL, quoted
from longtail.signals.reader import queries
from longtail.signals.sources import LabelNames, MetricsSource
from longtail.signals.vocabulary import Part, Series

from .points import pod, service

LABELS = LabelNames()


def _all_parts() -> list[Part]:
    names = CustomNames(running_requests="x", output_tokens_histogram="y")
    return [
        *vllm.parts(LABELS),
        *sglang.parts(LABELS),
        *gpu.parts(LABELS),
        *gateway.parts(LABELS),
        *custom.parts(names, LABELS),
    ]


def test_a_tick_costs_eleven_queries_whatever_the_number_of_services() -> None:
    one = queries([service(pod("a"), inference_pool="p")], LABELS)
    many = queries([service(pod("a"), name=f"r{i}", inference_pool="p") for i in range(500)], LABELS)
    assert len(one) == 11
    assert one == many


def test_an_engine_that_nobody_uses_is_not_asked_about() -> None:
    asked = queries([service(pod("a"), engine=Engine.SGLANG)], LABELS)
    assert not any("vllm:" in query.promql for query in asked)
    assert not any("llm_d_epp" in query.promql for query in asked)


def test_nothing_is_asked_for_no_service() -> None:
    assert queries([], LABELS) == ()


def test_each_set_of_custom_names_costs_one_query_and_shares_none() -> None:
    first, second = CustomNames(running_requests="one"), CustomNames(running_requests="two")
    services = [
        service(name=f"r{number}", engine=Engine.CUSTOM, custom=names)
        for number, names in enumerate([first, second, first])
    ]
    asked = [query for query in queries(services, LABELS) if query.name.startswith("custom-")]
    assert len(asked) == 2
    assert {"one" in query.promql for query in asked} == {True, False}
    assert not any("one" in query.promql and "two" in query.promql for query in asked)


def test_the_same_custom_names_are_the_same_engine_in_the_next_tick() -> None:
    assert CustomNames(running_requests="a").engine == CustomNames(running_requests="a").engine
    assert CustomNames(running_requests="a").engine != CustomNames(running_requests="a", arrivals="b").engine


@pytest.mark.parametrize(
    ("names", "says"),
    [
        pytest.param({"running_requests": ""}, "engine.metrics.running_requests: ''", id="no-running"),
        pytest.param({"running_requests": 'x"}'}, "running_requests: 'x\"}'", id="a-quote"),
        pytest.param(
            {"running_requests": "x", "arrivals": "up) or vector(1"},
            "engine.metrics.arrivals",
            id="an-expression",
        ),
        pytest.param({"running_requests": "x", "prompt_tokens": "9lives"}, "9lives", id="a-leading-digit"),
        pytest.param({"running_requests": "x\n"}, "running_requests", id="a-newline"),
    ],
)
def test_a_custom_name_that_is_not_a_metric_name_is_refused_by_field_and_value(
    names: dict[str, str], says: str
) -> None:
    with pytest.raises(SpecError) as caught:
        CustomNames(**names)
    assert says in str(caught.value)


@pytest.mark.parametrize("part", _all_parts(), ids=lambda part: part.tag.replace("/", ":"))
def test_every_part_keeps_the_labels_that_its_samples_are_sorted_by(part: Part) -> None:
    assert LABELS.namespace in part.expression
    assert part.object_label in part.expression
    if part.rank_label:
        assert f"{part.rank_label}" in part.expression.split(" by (")[1].split(")")[0]
    if part.series in {Series.OUTPUT_LENGTH, Series.QUEUE_WAIT, Series.FIRST_TOKEN_WAIT}:
        assert ", le)" in part.expression


def test_tags_are_unique() -> None:
    tags = [part.tag for part in _all_parts()]
    assert len(tags) == len(set(tags))


def test_label_names_of_another_scrape_configuration_are_used_throughout() -> None:
    labels = LabelNames(namespace="k8s_namespace_name", pod="k8s_pod_name")
    asked = queries([service(pod("a"), inference_pool="p")], labels)
    for query in asked:
        assert "k8s_namespace_name" in query.promql
        assert "by (namespace" not in query.promql
    assert any('exported_k8s_pod_name!=""' in query.promql for query in asked)


@pytest.mark.parametrize("name", ["", "a-b", "1a", 'x"', "a b"])
def test_a_label_name_that_is_none_is_a_settings_error(name: str) -> None:
    with pytest.raises(SettingsError, match=r"labels\.pod"):
        LabelNames(pod=name)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        pytest.param({"url": "prometheus:9090"}, "url", id="no-scheme"),
        pytest.param({"url": "http://"}, "url", id="no-host"),
        pytest.param({"url": "file:///etc/passwd"}, "url", id="a-file"),
        pytest.param({"url": "http://me:secret@host"}, "credentials", id="credentials-in-the-url"),
        pytest.param({"url": "http://host?x=1"}, "path", id="a-query"),
        pytest.param({"url": "http://host", "timeout_seconds": 0.0}, "timeout_seconds", id="no-time"),
        pytest.param({"url": "http://host", "scrape_interval_seconds": math.nan}, "scrape_interval", id="nan"),
    ],
)
def test_an_unusable_source_is_refused_by_name_and_key(settings: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match="'main'") as caught:
        MetricsSource(name="main", **settings)  # type: ignore[arg-type]  # by name
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


@given(st.text(st.sampled_from('a"\\\n{}'), max_size=12))
def test_a_quoted_value_ends_where_its_quote_ends(value: str) -> None:
    inside = quoted(value)[1:-1]
    assert "\n" not in inside
    assert '"' not in inside.replace("\\\\", "").replace('\\"', "")
    assert inside.replace("\\\\", "\0").replace('\\"', '"').replace("\\n", "\n").replace("\0", "\\") == value


def test_a_union_tags_each_of_its_parts() -> None:
    (running,) = [q for q in queries([service(pod("a"))], LABELS) if q.name == "running"]
    assert running.promql == (
        f'label_replace(sum by (namespace, pod) (vllm:num_requests_running), "{PART_LABEL}", "vllm/running", "", "")'
        " or label_replace(sum by (namespace, pod) (max by (namespace, pod, dp_rank)"
        f' (sglang:num_running_reqs{{priority=""}})), "{PART_LABEL}", "sglang/running", "", "")'
    )


def test_custom_names_need_engine_custom() -> None:
    with pytest.raises(ValueError, match="custom names"):
        ServiceSignals(key=service().key, pods=(), custom=CustomNames(running_requests="x"))
