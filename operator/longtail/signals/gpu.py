"""GPU occupancy from dcgm-exporter, by pod: the mean over its GPUs of the share of time they were busy.

``DCGM_FI_PROF_GR_ENGINE_ACTIVE`` is a ratio and in the exporter's default set; ``DCGM_FI_DEV_GPU_UTIL``,
in percent, is asked for where the profiling fields are off. Any kernel counts, so a decode batch of one
shows nearly 1: a witness that a pod works, not a measure of how much more it could.

The exporter names the pod that uses the GPU. Without ``honorLabels`` Prometheus keeps ``pod`` for the
exporter's own pod and moves the other to ``exported_pod``: both are read, the exported one first.
"""

from typing import Final

from longtail.signals.promql import aggregated
from longtail.signals.sources import LabelNames
from longtail.signals.vocabulary import Part, Series, age_of

ENGINE: Final = "dcgm"
_ACTIVE: Final = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
_UTIL: Final = "DCGM_FI_DEV_GPU_UTIL"


def parts(labels: LabelNames) -> tuple[Part, ...]:
    """Activity and age by pod."""
    active = " or ".join([*_by_pod("avg", _ACTIVE, labels), *(f"{e} / 100" for e in _by_pod("avg", _UTIL, labels))])
    ages = " or ".join([*_ages(_ACTIVE, labels), *_ages(_UTIL, labels)])
    return (
        Part(ENGINE, Series.GPU_ACTIVE, f"({active})", object_label=labels.pod),
        Part(ENGINE, Series.SAMPLE_AGE, f"({ages})", object_label=labels.pod),
    )


def _by_pod(operator: str, metric: str, labels: LabelNames) -> tuple[str, str]:
    exported, own = _selectors(metric, labels)
    return _moved(operator, exported, labels), aggregated(operator, own, (labels.namespace, labels.pod))


def _ages(metric: str, labels: LabelNames) -> tuple[str, str]:
    exported, own = (age_of(selector) for selector in _selectors(metric, labels))
    return _moved("max", exported, labels), aggregated("max", own, (labels.namespace, labels.pod))


def _selectors(metric: str, labels: LabelNames) -> tuple[str, str]:
    return f'{metric}{{exported_{labels.pod}!=""}}', f'{metric}{{exported_{labels.pod}="",{labels.pod}!=""}}'


def _moved(operator: str, expression: str, labels: LabelNames) -> str:
    """Aggregated by the exported names, which then take the place of the exporter's own."""
    for label in (labels.namespace, labels.pod):
        expression = f'label_replace({expression}, "{label}", "$1", "exported_{label}", "(.+)")'
    return aggregated(operator, expression, (labels.namespace, labels.pod))
