"""Looks at the API server beside the watches: has everything been listed yet, and what is there no more.

Kopf tells an event handler neither that the first list is complete nor, after a relist (410 Gone), which
objects vanished in the gap: without a sweep the store would keep them for ever. Both questions are answered
by lists of metadata alone, in chunks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from longtail.cluster.client import METADATA_LIST, KubernetesApi
from longtail.cluster.kinds import Kind
from longtail.cluster.store import Store
from longtail.errors import NotFound


async def count_objects(api: KubernetesApi, kind: Kind, *, namespaces: Sequence[str], label_selector: str = "") -> int:
    """Number of objects that a watch of this kind will see; 0 where the kind does not exist.

    Costs one small request per namespace: the server counts the rest of a list cut off after one entry.

    Raises:
        ClusterError: the list cannot be read.
    """
    total = 0
    for path in _paths(kind, namespaces):
        query = _query(label_selector)
        try:
            page = await api.get(path, query={**query, "limit": "1"}, accept=METADATA_LIST)
        except NotFound:
            continue
        metadata = page.get("metadata", {})
        if metadata.get("continue") and "remainingItemCount" not in metadata:
            # The server does not count what a selector leaves out.
            total += sum([len(_items(page)) async for page in api.pages(path, query=query)])
        else:
            total += len(_items(page)) + metadata.get("remainingItemCount", 0)
    return total


async def sweep_ghosts(
    api: KubernetesApi, store: Store, kind: Kind, *, namespaces: Sequence[str], label_selector: str = ""
) -> int:
    """Forget records whose objects are no more, and return how many there were.

    Only what was in the store *before* the list began can be a ghost: an object made meanwhile is missing
    in the list and very much alive. A list that fails half-way proves nothing and forgets nothing.

    Raises:
        ClusterError: the list cannot be read.
    """
    candidates = store.uids(kind)
    living: set[str] = set()
    for path in _paths(kind, namespaces):
        try:
            async for page in api.pages(path, query=_query(label_selector)):
                living.update(item["metadata"]["uid"] for item in _items(page))
        except NotFound:
            continue
    return store.keep_only(kind, candidates=candidates, living=living)


def _paths(kind: Kind, namespaces: Sequence[str]) -> list[str]:
    return [kind.path(namespace=namespace) for namespace in namespaces] or [kind.path()]


def _query(label_selector: str) -> Mapping[str, str]:
    return {"labelSelector": label_selector} if label_selector else {}


def _items(page: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    # An empty list of metadata has "items": null.
    return page.get("items") or ()
