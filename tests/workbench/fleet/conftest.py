"""Small traces and settings that the tests of the simulator share."""

import numpy as np
import pytest

from longtail.workbench.traces.lengths import PARAMETRIC_R1
from longtail.workbench.traces.trace import Trace


def busy_trace(*, seconds: float = 3600.0, per_second: float = 2.0, seed: int = 0) -> Trace:
    """Poisson arrivals with R1 lengths; 2 a second keep about 215 requests in flight."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(seconds * per_second)
    return Trace(
        name="busy",
        arrival_seconds=np.sort(rng.uniform(0.0, seconds, count)),
        input_tokens=rng.integers(1, 400, count),
        output_tokens=PARAMETRIC_R1.sample(count, rng),
    )


@pytest.fixture(scope="session")
def busy() -> Trace:
    """One hour."""
    return busy_trace()
