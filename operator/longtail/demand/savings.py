"""What a level of thinking saves of each class's output: of long answers more than of short ones.

Of a class only the mean length is known, no distribution. Its lengths are taken to be the common ones, L, stretched to
its mean: s L. A limit of x tokens leaves E[min(s L, x)] = s E[min(L, x / s)] of them, s I(x / s) (see `survival`).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from longtail.demand.buckets import Array
from longtail.demand.survival import Survival


def saved(usual: Survival, *, limits_tokens: Array, stretches: Mapping[str, float]) -> Sequence[Mapping[str, float]]:
    """Share of its tokens, 0..1, that each class saves at each limit, against the first of them.

    Args:
        usual: lengths of one service, as they are without limits.
        limits_tokens: longest answer at each level, descending.
        stretches: mean length of each class over the common one, > 0.

    >>> from longtail.demand.buckets import BUCKETS
    >>> usual = Survival.of(hazard=np.full((1, BUCKETS), 1 / 1000), limit=np.array([32768.0]))
    >>> found = saved(usual, limits_tokens=np.array([32768.0, 1000.0]), stretches={"batch": 4.0, "chat": 0.25})
    >>> [{name: round(share, 2) for name, share in each.items()} for each in found]
    [{'batch': 0.0, 'chat': 0.0}, {'batch': 0.78, 'chat': 0.02}]
    """
    points = np.minimum(limits_tokens[:, None] / np.array(list(stretches.values())), usual.limit[0])
    mass, _ = usual.integrals(points.reshape(1, -1))
    kept = mass.reshape(points.shape)
    shares = 1 - kept / np.maximum(kept[0], 1e-9)
    return [dict(zip(stretches, row, strict=True)) for row in np.maximum(shares, 0.0).tolist()]
