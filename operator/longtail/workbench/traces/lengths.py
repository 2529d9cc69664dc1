"""Laws of token counts: what lengths are drawn from, and what their true mean and survival are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from longtail.workbench.traces.trace import Floats, Integers


class LengthLaw(Protocol):
    """A distribution of whole token counts >= 1 with a greatest value."""

    @property
    def max_tokens(self) -> float:
        """No draw is longer."""

    @property
    def mean_tokens(self) -> float:
        """Expected value, exact or by quadrature, never by sampling."""

    def sample(self, size: int, rng: np.random.Generator) -> Integers:
        """``size`` independent draws, int64."""


@dataclass(frozen=True, slots=True)
class CappedLognormals:
    """Mixture of lognormals; whatever would be longer than ``max_tokens`` is cut there, as an engine does."""

    weights: Sequence[float]
    mu: Sequence[float]
    sigma: Sequence[float]
    max_tokens: float

    @property
    def mean_tokens(self) -> float:
        """E[min(X, cap)] = sum_i w_i (exp(mu_i + sigma_i^2 / 2) Phi(z_i - sigma_i) + cap (1 - Phi(z_i))).

        With z_i = (ln cap - mu_i) / sigma_i, the limited expected value of a lognormal. Rounding to whole
        tokens moves it by less than a token.

        >>> round(CappedLognormals((1.0,), (7.0,), (0.5,), 1e9).mean_tokens, 1)  # exp(7 + 1/8)
        1242.6
        """
        total = 0.0
        for weight, mu, sigma in zip(self.weights, self.mu, self.sigma, strict=True):
            z = (math.log(self.max_tokens) - mu) / sigma
            below = math.exp(mu + sigma * sigma / 2) * _normal_cdf(z - sigma)
            total += weight * (below + self.max_tokens * (1 - _normal_cdf(z)))
        return total / sum(self.weights)

    def sample(self, size: int, rng: np.random.Generator) -> Integers:
        """``size`` independent draws, int64."""
        shares = np.asarray(self.weights) / sum(self.weights)
        component = rng.choice(len(shares), size=size, p=shares)
        drawn = rng.lognormal(np.asarray(self.mu)[component], np.asarray(self.sigma)[component])
        return np.clip(np.rint(drawn), 1, self.max_tokens).astype(np.int64)


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


PARAMETRIC_R1 = CappedLognormals(
    weights=(0.595, 0.194, 0.211), mu=(6.156, 7.228, 8.101), sigma=(0.543, 0.182, 0.775), max_tokens=32_768
)
"""Three lognormals fitted to a DeepSeek-R1 production day's output lengths (ServeGen, arXiv 2505.09999)."""

HEAVY_TAIL = CappedLognormals(weights=(1.0,), mu=(7.418,), sigma=(1.253,), max_tokens=76_000)
"""From the published median 1,665 and mean 3,651 of a thinking model (USENIX ATC 2025, arXiv 2506.02634):
mu = ln 1665, sigma = sqrt(2 ln(3651 / 1665)). Parametric, not a fit."""

PARAMETRIC_INPUT = CappedLognormals(weights=(1.0,), mu=(5.34,), sigma=(1.9,), max_tokens=57_000)
"""Input lengths with the median (208) and about the mean (1,268) of the same R1 day."""


@dataclass(frozen=True, slots=True, eq=False)
class Empirical:
    """Lengths with the weights that a source gives them."""

    values: Integers
    weights: NDArray[np.float64]

    @property
    def max_tokens(self) -> float:
        """The longest value."""
        return float(self.values.max())

    @property
    def mean_tokens(self) -> float:
        """Weighted mean."""
        return float(np.average(self.values, weights=self.weights))

    def sample(self, size: int, rng: np.random.Generator) -> Integers:
        """``size`` independent draws, int64."""
        cumulative = np.cumsum(self.weights)
        drawn = np.searchsorted(cumulative, rng.random(size) * cumulative[-1], side="right")
        lengths: Integers = self.values[np.minimum(drawn, len(self.values) - 1)]
        return lengths


@dataclass(frozen=True, slots=True)
class Scaled:
    """Another law times a factor, cut at ``max_tokens``."""

    law: "CappedLognormals | Empirical"
    factor: float
    max_tokens: float

    @property
    def mean_tokens(self) -> float:
        """Expected value; a cap inside the law cuts before the factor does."""
        if isinstance(self.law, Empirical):
            return float(
                np.average(np.minimum(self.law.values * self.factor, self.max_tokens), weights=self.law.weights)
            )
        inner = min(self.law.max_tokens, self.max_tokens / self.factor)
        return self.factor * CappedLognormals(self.law.weights, self.law.mu, self.law.sigma, inner).mean_tokens

    def sample(self, size: int, rng: np.random.Generator) -> Integers:
        """``size`` independent draws, int64."""
        return scale_tokens(self.law.sample(size, rng), self.factor, self.max_tokens)


def scale_tokens(tokens: Integers, factor: float, max_tokens: float) -> Integers:
    """Lengths times a factor, cut at ``max_tokens``.

    >>> scale_tokens(np.array([10, 20_000]), 3.0, 32_768).tolist()
    [30, 32768]
    """
    scaled: Floats = np.clip(np.rint(tokens * factor), 1, max_tokens)
    return scaled.astype(np.int64)
