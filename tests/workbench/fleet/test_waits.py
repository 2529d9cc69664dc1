"""The histogram of waits against the waits themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.workbench.fleet.waits import WaitSketch


@given(st.lists(st.floats(0.0, 1e5), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_quantiles_are_within_half_a_percent(waits, q):
    sketch = WaitSketch(10.0)
    for piece in np.array_split(np.array(waits), 3):
        sketch.add(piece)
    exact = float(np.quantile(waits, q, method="inverted_cdf"))
    assert sketch.quantile(q) == pytest.approx(exact, rel=0.005, abs=1.01e-3)
    assert sketch.within == sum(wait <= 10.0 for wait in waits)
    assert (sketch.count, sketch.longest) == (len(waits), max(waits))


def test_nobody_waited_where_there_was_nobody():
    assert WaitSketch(10.0).quantile(0.99) == 0.0
