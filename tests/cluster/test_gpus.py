"""GPUs of a replica, as templates and pods ask for them in different clouds."""

from decimal import Decimal
from typing import Any

import pytest

from longtail.api import to_policy
from longtail.api.resource import read_spec
from longtail.cluster.gpus import CLASS_LABELS, common_gpus, model_of, pod_gpus, workload_gpus
from longtail.cluster.records import pod_record, serving_record, workload_record
from longtail.cluster.snapshot import ServingView
from longtail.control.fleet import build_fleet
from longtail.control.prices import Prices
from longtail.policy.fleet import GpuShape, Variant
from longtail_fakes.manifests import deployment, pod, serving

H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}


def takes(count: int | str, resource: str = "nvidia.com/gpu", **more: Any) -> dict[str, Any]:
    return {"resources": {"limits": {resource: count, "cpu": "8", "memory": "64Gi"}}, **more}


def needs(label: str, *alternatives: list[str], operator: str = "In") -> dict[str, Any]:
    """A node affinity with one term for each list of values."""
    terms = [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
        if not values
        else {"matchExpressions": [{"key": label, "operator": operator, "values": values}]}
        for values in alternatives
    ]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        pytest.param({"containers": [takes("8")], "nodeSelector": H100}, GpuShape("H100", 8), id="nvidia"),
        pytest.param({"containers": [takes(8)], "nodeSelector": H100}, GpuShape("H100", 8), id="a-number"),
        pytest.param(
            {"containers": [{"resources": {"requests": {"nvidia.com/gpu": "2"}}}]},
            GpuShape("UNKNOWN", 2),
            id="requested-and-no-class",
        ),
        pytest.param(
            {
                "containers": [takes(8, "amd.com/gpu")],
                "nodeSelector": {"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"},
            },
            GpuShape("MI300X", 8),
            id="amd",
        ),
        pytest.param(
            {"containers": [takes(1, "gpu.intel.com/xe")], "nodeSelector": {"gpu.intel.com/product": "Max_1550"}},
            GpuShape("MAX-1550", 1),
            id="intel",
        ),
        pytest.param({"containers": [takes(1, "gpu.intel.com/tiles")]}, None, id="intel-tiles-are-no-gpus"),
        pytest.param({"containers": [{"resources": {"limits": {"cpu": "4"}}}]}, None, id="no-gpu"),
        pytest.param({}, None, id="nothing"),
        pytest.param(
            {"containers": [takes(4), takes(4), {"name": "proxy"}], "nodeSelector": H100},
            GpuShape("H100", 8),
            id="containers-add-up",
        ),
        pytest.param(
            {"containers": [takes(4)], "initContainers": [takes(1)], "nodeSelector": H100},
            GpuShape("H100", 4),
            id="an-init-container-is-over-by-then",
        ),
        pytest.param(
            {"containers": [takes(4)], "initContainers": [takes(8)], "nodeSelector": H100},
            GpuShape("H100", 8),
            id="a-greedier-init-container",
        ),
        pytest.param(
            {"containers": [takes(4)], "initContainers": [takes(1, restartPolicy="Always")], "nodeSelector": H100},
            GpuShape("H100", 5),
            id="a-sidecar-stays",
        ),
        pytest.param(
            {"containers": [takes(1), takes(1, "amd.com/gpu")]}, None, id="two-kinds-are-no-number-of-one-class"
        ),
        pytest.param(
            {"containers": [takes(2, "nvidia.com/mig-3g.40gb")], "nodeSelector": H100},
            GpuShape("H100-MIG-3G.40GB", 2),
            id="slices-by-resource",
        ),
        pytest.param(
            {
                "containers": [takes(1)],
                "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED"},
            },
            GpuShape("A100-MIG-1G.5GB-SHARED", 1),
            id="slices-by-label",
        ),
        pytest.param(
            {"containers": [takes(1, "nvidia.com/gpu.shared")], "nodeSelector": {"nvidia.com/gpu.product": "Tesla-T4"}},
            GpuShape("T4-SHARED", 1),
            id="time-slices",
        ),
        pytest.param(
            {"containers": [takes(1)], "affinity": needs("nvidia.com/gpu.product", ["NVIDIA-L40S"])},
            GpuShape("L40S", 1),
            id="affinity",
        ),
        pytest.param(
            {
                "containers": [takes(1)],
                "affinity": needs("nvidia.com/gpu.product", ["NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe"]),
            },
            GpuShape("H100", 1),
            id="two-spellings-of-one-model",
        ),
        pytest.param(
            {"containers": [takes(1)], "affinity": needs("nvidia.com/gpu.product", ["NVIDIA-L40S", "NVIDIA-L4"])},
            GpuShape("UNKNOWN", 1),
            id="either-of-two-models",
        ),
        pytest.param(
            {"containers": [takes(1)], "affinity": needs("nvidia.com/gpu.product", ["NVIDIA-L40S"], [])},
            GpuShape("UNKNOWN", 1),
            id="a-term-that-takes-any",
        ),
        pytest.param(
            {"containers": [takes(1)], "affinity": needs("nvidia.com/gpu.product", ["Tesla-T4"], operator="NotIn")},
            GpuShape("UNKNOWN", 1),
            id="anything-but",
        ),
    ],
)
def test_a_pod_says_how_many_gpus_of_which_class(spec: dict[str, Any], shape: GpuShape | None) -> None:
    assert pod_gpus(spec) == shape


@pytest.mark.parametrize("label", CLASS_LABELS)
def test_every_label_tells_the_same_model(label: str) -> None:
    spec = {"containers": [takes(1)], "nodeSelector": {label: "nvidia-h100-80gb", "pool": "gpu"}}
    assert pod_gpus(spec) == GpuShape("H100", 1)
    assert pod_gpus({"containers": [takes(1)], "affinity": needs(label, ["h100"])}) == GpuShape("H100", 1)


@pytest.mark.parametrize(
    ("spelled", "model"),
    [
        ("NVIDIA-H200", "H200"),
        ("NVIDIA-H100-NVL", "H100"),
        ("nvidia-h100-mega-80gb", "H100"),
        ("nvidia-tesla-a100", "A100"),
        ("nvidia-a100-80gb", "A100"),
        ("A100_NVLINK_80GB", "A100"),
        ("Tesla-V100-SXM2-16GB", "V100"),
        ("NVIDIA-GH200-480GB", "GH200"),
        ("nvidia-gb200", "GB200"),
        ("a10g", "A10G"),
        ("NVIDIA-RTX-A6000", "A6000"),
        ("NVIDIA-RTX-6000-Ada-Generation", "RTX-6000"),
        ("NVIDIA-GeForce-RTX-4090", "GEFORCE-RTX-4090"),
        ("NVIDIA-H100-80GB-HBM3-SHARED", "H100-SHARED"),
        ("nothing-known", "NOTHING-KNOWN"),
    ],
)
def test_models_are_told_however_they_are_spelled(spelled: str, model: str) -> None:
    assert model_of(spelled) == model
    assert model_of(model) == model


def group(leader: dict[str, Any] | None, worker: dict[str, Any], size: int) -> dict[str, Any]:
    template = {"size": size, "workerTemplate": {"spec": worker}}
    return {"leaderWorkerTemplate": template | ({} if leader is None else {"leaderTemplate": {"spec": leader}})}


EIGHT = {"containers": [takes(8)], "nodeSelector": H100}
CPU_ONLY = {"containers": [{"name": "router"}]}
L4 = {"containers": [takes(1)], "nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-l4"}}


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        pytest.param(group(None, EIGHT, 4), GpuShape("H100", 32), id="all-alike"),
        pytest.param(group(EIGHT, EIGHT, 2), GpuShape("H100", 16), id="leader-and-workers"),
        pytest.param(group(CPU_ONLY, EIGHT, 3), GpuShape("H100", 16), id="a-leader-without-gpus"),
        pytest.param(group(EIGHT, CPU_ONLY, 1), GpuShape("H100", 8), id="a-leader-alone"),
        pytest.param(group(L4, EIGHT, 2), None, id="two-classes-in-a-group"),
        pytest.param(group(None, CPU_ONLY, 2), None, id="no-gpu"),
    ],
)
def test_a_replica_of_a_leader_worker_set_is_a_group(spec: dict[str, Any], shape: GpuShape | None) -> None:
    assert workload_gpus(spec, kind="LeaderWorkerSet") == shape


@pytest.mark.parametrize(
    ("shapes", "common"),
    [
        pytest.param([GpuShape("L4", 1), GpuShape("L4", 1)], GpuShape("L4", 1), id="alike"),
        pytest.param([GpuShape("L4", 1), GpuShape("L4", 2)], None, id="different"),
        pytest.param([GpuShape("L4", 1), None], None, id="one-without"),
        pytest.param([], None, id="no-pod"),
    ],
)
def test_pods_have_gpus_in_common_only_when_all_agree(shapes, common) -> None:
    assert common_gpus(shapes) == common


def view(*, template: dict[str, Any] | None, pods: list[dict[str, Any]], **spec: Any) -> ServingView:
    workload = deployment()
    workload["spec"]["template"]["spec"] = template or {}
    bodies = [pod(f"r1-{number}") | {"spec": each} for number, each in enumerate(pods)]
    return ServingView(
        record=serving_record(serving(**spec), previous=None),
        target=workload_record(workload, group="apps", kind="Deployment"),
        problem=None,
        conflict=None,
        pods=tuple(pod_record(body, previous=None) for body in bodies),
    )


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        pytest.param(view(template=EIGHT, pods=[L4]), GpuShape("H100", 8), id="the-template-comes-first"),
        pytest.param(view(template=None, pods=[L4, L4]), GpuShape("L4", 1), id="pods-where-no-template-says"),
        pytest.param(view(template=None, pods=[CPU_ONLY]), None, id="nobody-says"),
        pytest.param(view(template=EIGHT, pods=[], gpus={"perReplica": 4}), GpuShape("H100", 4), id="number-stated"),
        pytest.param(view(template=EIGHT, pods=[], gpus={"class": "h200"}), GpuShape("H200", 8), id="class-stated"),
        pytest.param(view(template=None, pods=[], gpus={"class": "H200"}), None, id="a-class-is-no-number"),
        pytest.param(view(template=None, pods=[], gpus={"perReplica": 2}), GpuShape("UNKNOWN", 2), id="no-class"),
    ],
)
def test_the_fleet_knows_the_gpus_of_a_replica(given: ServingView, shape: GpuShape | None) -> None:
    (service,) = build_fleet([given]).services
    assert service.gpus == shape


@pytest.mark.parametrize(
    ("prices", "price"),
    [
        pytest.param(None, None, id="no-prices"),
        pytest.param(Prices("USD", {"H100": Decimal("2.99")}), 2.99, id="of-its-class"),
        pytest.param(Prices("USD", {"L40S": Decimal("1.10")}), None, id="of-another-class"),
    ],
)
def test_the_fleet_knows_what_a_service_is_a_variant_of(prices: Prices | None, price: float | None) -> None:
    given = view(template=EIGHT, pods=[], variantOf="deepseek-r1", gateway={"inferencePool": "r1-pool"})
    (service,) = build_fleet([given], prices=prices).services
    assert service.variant == Variant("deepseek-r1", price, "r1-pool")


def test_what_a_user_says_of_gpus_needs_no_pods() -> None:
    spec = read_spec(serving(gpus={"class": "H100", "perReplica": 8}))
    assert to_policy.gpus(spec, None) == GpuShape("H100", 8)
