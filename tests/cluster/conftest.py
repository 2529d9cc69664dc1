from collections.abc import AsyncIterator

import pytest

from longtail.cluster.client import KubernetesApi
from longtail_fakes.kubernetes import KubernetesFake


@pytest.fixture
async def server() -> AsyncIterator[KubernetesFake]:
    async with KubernetesFake().serve() as running:
        yield running


@pytest.fixture
async def api(server: KubernetesFake) -> AsyncIterator[KubernetesApi]:
    async with KubernetesApi(configuration=server.configuration()) as client:
        yield client
