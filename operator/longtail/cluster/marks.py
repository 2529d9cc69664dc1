"""What longtail writes on pods: names and values only. Every mark of ours says so, and goes when it is done with.

A pod that carries ``CORDONED_AT`` was touched by longtail; without it nothing of a pod is ever changed, but for
the deletion cost, which has a mark of its own.
"""

from typing import Final

IN_ROUTING: Final = "true"
"""Value of the routing label: the pod gets requests."""
DRAINING: Final = "draining"
"""Value of the routing label: taken out by longtail. Any third value is somebody else's."""

READINESS_GATE: Final = "longtail.dev/in-service"
"""Pod condition that switches a pod whose template names it as a readiness gate."""

CORDONED_AT: Final = "longtail.dev/cordoned-at"
"""Annotation: since when the pod is out of routing, RFC 3339."""
CORDONED_THROUGH: Final = "longtail.dev/cordoned-through"
"""Annotation: the routing label, or the gate, by which it was taken out. The resource may say another by now."""
KEPT: Final = "longtail.dev/kept-annotations"
"""Annotation: which of `PROTECTION` the user had set already, and finds again after the drain."""

PROTECTION: Final = {
    "karpenter.sh/do-not-disrupt": "true",
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
}
"""Annotations that keep node autoscalers from moving a pod while it finishes its last requests."""

DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
"""Annotation of KEP-2255: a ReplicaSet deletes the pod with the lowest cost first."""
COST_MARK: Final = "longtail.dev/deletion-cost"
"""Annotation: the deletion cost is ours as long as it has this value."""
CONDEMNED_COST: Final = -1000

OURS: Final = (CORDONED_AT, CORDONED_THROUGH, KEPT, DELETION_COST, COST_MARK, *PROTECTION)
"""Annotations that are remembered of a pod."""
