"""Which GPUs a replica takes, as its pod template asks for them. Pure.

How many is what the containers are limited to; a replica of a LeaderWorkerSet is a group, a leader and its workers. Of
which class is told by the node labels that the template selects by. Nodes are not looked at: that would take a right
on the whole cluster to learn what most templates say already. Each cloud spells a model in its own way
(``NVIDIA-H100-80GB-HBM3``, ``nvidia-h100-80gb``, ``h100``), so a class is the model alone: ``H100``. Part of a GPU is a
class of its own, ``H100-MIG-3G.40GB`` or ``H100-SHARED``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from longtail.policy.fleet import UNKNOWN_GPU_CLASS, GpuShape

CLASS_LABELS: Final = (
    "nvidia.com/gpu.product",  # NVIDIA's GPU feature discovery
    "gpu.nvidia.com/model",  # CoreWeave
    "gpu.nvidia.com/class",  # CoreWeave, older
    "cloud.google.com/gke-accelerator",
    "eks.amazonaws.com/instance-gpu-name",  # EKS Auto Mode
    "karpenter.k8s.aws/instance-gpu-name",
    "karpenter.azure.com/sku-gpu-name",  # AKS node auto-provisioning; kubernetes.azure.com/accelerator names the vendor
    "amd.com/gpu.product-name",
    "beta.amd.com/gpu.product-name",
    "gpu.intel.com/product",
)
"""Node labels whose value names a model of GPU. The first one that a pod selects by counts."""

_WHOLE: Final = frozenset({"nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe"})
"""Resources that count GPUs. ``gpu.intel.com/`` also has memory, tiles and monitoring, which do not."""
_PART: Final = re.compile(r"nvidia\.com/(?:gpu\.(?P<shared>shared)|(?P<mig>mig-[a-z0-9.+]+))")
_MAKERS: Final = frozenset({"NVIDIA", "TESLA", "AMD", "INSTINCT", "INTEL", "DATA", "CENTER", "GPU"})
_MODEL: Final = re.compile(r"(?!\d+GB?$)(?=.*\d)(?=.*[A-Z])[A-Z0-9]+")


def pod_gpus(spec: Mapping[str, Any]) -> GpuShape | None:
    """GPUs of one pod, from its spec; None where it takes none, or of several kinds.

    >>> engine = {"resources": {"limits": {"nvidia.com/gpu": "8"}}}
    >>> pod_gpus({"containers": [engine], "nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}})
    GpuShape(gpu_class='H100', per_replica=8)
    """
    counts = _counts(spec)
    if len(counts) != 1:
        return None
    ((resource, count),) = counts.items()
    part, model = _PART.fullmatch(resource), _class(spec)
    if part is None:
        return GpuShape(gpu_class=model or UNKNOWN_GPU_CLASS, per_replica=count)
    suffix = (part["shared"] or part["mig"]).upper()
    whole = (model or "").partition("-MIG-")[0].removesuffix("-SHARED")
    return GpuShape(gpu_class=f"{whole}-{suffix}" if whole else suffix, per_replica=count)


def workload_gpus(spec: Mapping[str, Any], *, kind: str) -> GpuShape | None:
    """GPUs of one replica of a Deployment, StatefulSet or LeaderWorkerSet, from the spec of the workload."""
    if kind != "LeaderWorkerSet":
        return pod_gpus(_pod_spec(spec.get("template")))
    groups = spec.get("leaderWorkerTemplate") or {}
    worker = pod_gpus(_pod_spec(groups.get("workerTemplate")))
    leader = pod_gpus(_pod_spec(groups["leaderTemplate"])) if groups.get("leaderTemplate") else worker
    workers = max(int(groups.get("size") or 1) - 1, 0)
    shapes = [(leader, 1), (worker, workers)]
    taking = [(shape, pods) for shape, pods in shapes if shape is not None and pods]
    if len({shape.gpu_class for shape, _ in taking}) != 1:
        return None
    return GpuShape(taking[0][0].gpu_class, sum(shape.per_replica * pods for shape, pods in taking))


def common_gpus(shapes: Iterable[GpuShape | None]) -> GpuShape | None:
    """What all pods take; None where they differ, or where one takes none."""
    different = set(shapes)
    return different.pop() if len(different) == 1 else None


def model_of(name: str) -> str:
    """The model of a GPU in whichever way it is spelled.

    >>> [model_of(name) for name in ("NVIDIA-H100-80GB-HBM3", "nvidia-tesla-t4", "AMD_Instinct_MI300X_OAM", "l40s")]
    ['H100', 'T4', 'MI300X', 'L40S']
    >>> [model_of(name) for name in ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", "A100-SXM4-40GB-MIG-1g.5gb")]
    ['RTX-PRO-6000', 'A100-MIG-1G.5GB']
    """
    words = [word for word in re.split(r"[-_ ]+", name.upper()) if word and word not in _MAKERS]
    suffix = ""
    if "MIG" in words:
        at = words.index("MIG")
        suffix, words = "-".join(["", *words[at:]]), words[:at]
    elif words[-1:] == ["SHARED"]:
        suffix, words = "-SHARED", words[:-1]
    model = next((word for word in words if _MODEL.fullmatch(word)), None)
    if model is None:
        # RTX 4090, Max 1550: a series, and a number in it.
        last = next((index for index, word in enumerate(words) if word.isdecimal()), len(words) - 1)
        model = "-".join(words[: last + 1])
    return model + suffix


def _pod_spec(template: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return (template or {}).get("spec") or {}


def _counts(spec: Mapping[str, Any]) -> dict[str, int]:
    """GPUs by resource, as the scheduler counts them: of containers that run together, or of the greediest before them.

    An init container that is restarted always runs on beside all that come later.
    """
    together: dict[str, int] = {}
    before: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        own = _asked(container)
        if container.get("restartPolicy") == "Always":
            together = _sum(together, own)
        else:
            before = _most(before, _sum(together, own))
    for container in spec.get("containers") or ():
        together = _sum(together, _asked(container))
    return {resource: count for resource, count in _most(together, before).items() if count}


def _asked(container: Mapping[str, Any]) -> dict[str, int]:
    """GPUs of one container: its limit, which is its request too (the API server sees to that)."""
    resources = container.get("resources") or {}
    asked = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    return {
        resource: int(count)
        for resource, count in asked.items()
        if (resource in _WHOLE or _PART.fullmatch(resource)) and str(count).isdecimal()
    }


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in (*one, *other)}


def _most(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {key: max(one.get(key, 0), other.get(key, 0)) for key in (*one, *other)}


def _class(spec: Mapping[str, Any]) -> str | None:
    """The one model that its pods can land on; None where it does not say, or allows several."""
    selected = spec.get("nodeSelector") or {}
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or ()
    for label in CLASS_LABELS:
        if label in selected:
            return model_of(selected[label])
        # Of the terms one must hold, whichever: so each of them has to name the model.
        named = [_values(term.get("matchExpressions") or (), label) for term in terms]
        if named and all(named):
            models = {model_of(value) for values in named for value in values}
            return models.pop() if len(models) == 1 else None
    return None


def _values(expressions: Sequence[Mapping[str, Any]], label: str) -> Sequence[str]:
    return next((e.get("values") or () for e in expressions if e.get("key") == label and e.get("operator") == "In"), ())
