"""Histograms of lengths and waits: one grid of token buckets for the fleet, and every engine's bounds mapped onto it.

vLLM writes 1-2-5 buckets up to the longest context, SGLang writes others, users set their own, and pods of one
service may differ while a rollout is on. Everything behind this module sees one grid, so that a fleet of services
is one array of shape (services, buckets).
"""

import functools
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Array32 = npt.NDArray[np.float32]
Floats = TypeVar("Floats", Array, Array32)
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

EDGES: Array = np.array([0.0] + [digit * 10.0**power for power in range(6) for digit in (1, 2, 5)])
"""Lower edges of the buckets in tokens: 0, 1, 2, 5, 10 … 500000; the last bucket is open above."""
BUCKETS = len(EDGES)
UPPER: Array = np.append(EDGES[1:], np.inf)
"""Upper edges of the buckets."""
WIDTHS: Array = UPPER - EDGES
EDGES_32: Array32 = EDGES.astype(np.float32)
UPPER_32: Array32 = UPPER.astype(np.float32)
DUST = 1e-9
"""Fewer requests, tokens or seconds than this are none, and no divisor."""
_INNER_32 = EDGES_32[1:]


def bucket_of(tokens: Array | Array32) -> Index:
    """Index of the bucket that holds each age in tokens; an edge belongs to the bucket above it.

    >>> bucket_of(np.array([0.0, 0.5, 1.0, 1999.0, 2000.0, 1e9])).tolist()
    [0, 0, 1, 10, 11, 18]
    """
    return _INNER_32.searchsorted(tokens, side="right")


def clip(values: Floats, low: Floats | float, high: Floats | float) -> Floats:
    """`np.clip` without its four layers of Python, which cost a small fleet more than the numbers."""
    result: Floats = np.minimum(np.maximum(values, low), high)
    return result


def dusted(values: Array) -> Array:
    """What has become too small to matter is 0: no denormals."""
    return np.where(np.abs(values) < DUST, 0.0, values)


def increments(sums: Array) -> Array:
    """What each column adds to the one before it; the first is all its own. `np.diff` with a 0 before, much faster.

    >>> increments(np.array([[2.0, 5.0, 9.0]])).tolist()
    [[2.0, 3.0, 4.0]]
    """
    result = sums.copy()
    result[:, 1:] -= sums[:, :-1]
    return result


@functools.lru_cache(maxsize=256)
def overlap(upper_bounds: tuple[float, ...]) -> Array:
    """Share of each grid bucket that each bucket of a histogram covers, shape (its buckets, grid buckets).

    Within a grid bucket requests are taken as uniform. The open bucket of a histogram covers the whole rest of
    the grid: how it divides there is left to what is known of the service's lengths (`spread`).

    >>> overlap((1000.0, float("inf")))[:, 9:12].tolist()       # grid: 500-1000, 1000-2000, 2000-5000
    [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]
    >>> overlap((300.0, float("inf")))[0, 7:9].round(3).tolist()  # 300 lies a third into 200-500
    [1.0, 0.333]
    """
    upper = np.array(upper_bounds)
    # The open grid bucket gets an end beyond all finite bounds, so that the open bucket always covers a part of it.
    grid_upper = np.append(EDGES[1:], 2 * max(EDGES[-1], *upper[:-1], 0.0))
    upper[-1] = grid_upper[-1]
    lower = np.append(0.0, upper[:-1])
    shared = np.minimum(upper[:, None], grid_upper) - np.maximum(lower[:, None], EDGES)
    result: Array = np.maximum(shared, 0.0) / (grid_upper - EDGES)
    result.flags.writeable = False
    return result


def spread(*, counts: Array, upper_bounds: tuple[float, ...], probability: Array) -> Array:
    """Counts of a histogram, shape (services, its buckets), on the grid: shape (services, `BUCKETS`).

    A bucket that covers several grid buckets is divided as the service's own length distribution would divide it
    (the expectation step of EM for grouped data, Dempster, Laird and Rubin 1977): uniform division would put most
    of an open last bucket where hardly any request ends. ``probability`` has shape (services, `BUCKETS`), >= 0.

    >>> even = np.full((1, BUCKETS), 1 / BUCKETS)
    >>> on_grid = spread(counts=np.array([[6.0, 2.0]]), upper_bounds=(5.0, float("inf")), probability=even)
    >>> on_grid[0, :4].tolist()
    [2.0, 2.0, 2.0, 0.125]
    >>> float(on_grid.sum())
    8.0
    """
    covered = overlap(upper_bounds)
    likely = np.maximum(probability, 1e-9)  # a bucket thought impossible was hit all the same
    weight = np.einsum("cb,fb->cf", likely, covered)
    scale = np.divide(counts, weight, out=np.zeros_like(counts), where=weight > 0)
    result: Array = likely * np.einsum("cf,fb->cb", scale, covered)
    return result


def count_within(*, counts: Array, upper_bounds: tuple[float, ...], limit: Array) -> Array:
    """Events at or below a limit, shape (services,), of histograms of shape (services, buckets).

    The bucket that holds the limit is divided evenly. Of an open last bucket nothing counts: all that is known of it
    is that it lies above the last bound.

    >>> count_within(counts=np.array([[8.0, 1.0, 4.0, 2.0]]), upper_bounds=(5.0, 10.0, 20.0, float("inf")),
    ...              limit=np.array([15.0])).tolist()
    [11.0]
    """
    upper = np.array(upper_bounds)
    lower = np.append(0.0, upper[:-1])
    width = np.where(np.isfinite(upper), np.maximum(upper - lower, 1e-9), np.inf)
    share = clip((limit[:, None] - lower) / width, 0.0, 1.0)
    result: Array = np.einsum("cf,cf->c", counts, share)
    return result
