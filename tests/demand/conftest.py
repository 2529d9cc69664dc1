import numpy as np
import pytest


@pytest.fixture(autouse=True)
def strict_numbers():
    """Any overflow, underflow, division by zero or invalid operation is an error."""
    with np.errstate(all="raise"):
        yield
