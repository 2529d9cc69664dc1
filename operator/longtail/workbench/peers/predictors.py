"""Dynamo's one-step load predictors: constant, Kalman (local linear trend) and ARIMA, as pure folds.

Read from ai-dynamo/dynamo 260b6ae (``components/src/dynamo/planner/core/load/predictors.py``) and the
defaults in ``planner_config.py`` 1366ebb / ``config/defaults.py``.

Quirks kept: the zeros before the first load are skipped; a value that is not finite is a zero; the Kalman
forecast may be negative (only its log1p variant is clipped); ARIMA answers with the last value until it has
five, and with the first value while all are equal.

ARIMA needs ``statsmodels`` (an extra: ``pip install statsmodels``). Dynamo uses ``pmdarima.auto_arima``: d
from a KPSS test, p and q by AIC, found once at the fifth value, with a fall-back to log1p when both are 0;
later values only refit the coefficients. Ours does the same with p, q <= 2. From five values the orders
nearly always collapse to (0, 0, 0), which is the mean of all values so far: on the recorded series it is
*worse* than the last value, by a factor of 1.4 to 2 in absolute error.
"""

import importlib
import itertools
import math
import warnings
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np

from longtail.errors import SettingsError

_TREND = ("c", "t", "n")
"""Constant, drift, or nothing, by how often a series was differenced."""


class Predictor(Protocol):
    """One series. A value: ``observed`` returns the next one."""

    def observed(self, value: float) -> Self:
        """With one more interval's value in it."""

    def forecast(self) -> float:
        """The next interval's value; 0 before the first one."""


def clean(value: float, *, seen_load: bool) -> float | None:
    """The value as Dynamo's buffer takes it; None for what it skips."""
    value = value if math.isfinite(value) else 0.0
    return None if value == 0 and not seen_load else value


@dataclass(frozen=True, slots=True)
class Constant:
    """The next interval is like the last one."""

    last: float | None = None

    def observed(self, value: float) -> Self:
        """Remember it."""
        cleaned = clean(value, seen_load=self.last is not None)
        return self if cleaned is None else replace(self, last=cleaned)

    def forecast(self) -> float:
        """The last value."""
        return self.last or 0.0


@dataclass(frozen=True, slots=True)
class Kalman:
    """Level and trend. Q = diag(q_level, q_trend) a step, R = r, P starts at 1000·I.

    The first value sets the level; each further one is a predict and an update. A forecast is one predict.
    """

    q_level: float = 1.0
    q_trend: float = 0.1
    r: float = 10.0
    log1p: bool = False
    min_points: int = 5
    points: int = 0
    last: float = 0.0
    level: float | None = None
    trend: float = 0.0
    covariance: tuple[float, float, float] = (1000.0, 0.0, 1000.0)
    """P as (level, cross, trend): it is symmetric."""

    def observed(self, value: float) -> Self:
        """Predict one step, then take the value in."""
        cleaned = clean(value, seen_load=self.level is not None)
        if cleaned is None:
            return self
        measured = math.log1p(max(0.0, cleaned)) if self.log1p else cleaned
        if self.level is None:
            return replace(self, level=measured, trend=0.0, points=1, last=cleaned)
        level, (p_level, p_cross, p_trend) = self._predicted()
        innovation, scale = measured - level, p_level + max(1e-9, self.r)
        gain_level, gain_trend = p_level / scale, p_cross / scale
        return replace(
            self,
            points=self.points + 1,
            last=cleaned,
            level=level + gain_level * innovation,
            trend=self.trend + gain_trend * innovation,
            covariance=(
                (1 - gain_level) * p_level,
                (1 - gain_level) * p_cross,
                p_trend - gain_trend * p_cross,
            ),
        )

    def forecast(self) -> float:
        """Level plus trend, at least 0; the last value while there are too few."""
        if self.points < self.min_points:
            return self.last
        level, _ = self._predicted()
        return max(0.0, math.expm1(level) if self.log1p else level)

    def _predicted(self) -> tuple[float, tuple[float, float, float]]:
        assert self.level is not None
        p_level, p_cross, p_trend = self.covariance
        return self.level + self.trend, (
            p_level + 2 * p_cross + p_trend + max(1e-12, self.q_level),
            p_cross + p_trend,
            p_trend + max(1e-12, self.q_trend),
        )


@dataclass(frozen=True, slots=True)
class Arima:
    """ARIMA(p, d, q) without season. Orders and coefficients are found once, at the fifth value.

    Raises:
        SettingsError: at construction, when statsmodels is not installed.
    """

    log1p: bool = False
    values: tuple[float, ...] = ()
    fitted: Any = field(default=None, compare=False, repr=False)
    """statsmodels' result, extended by each value; never changed in place."""
    in_log: bool = False

    def __post_init__(self) -> None:
        _statsmodels()

    def observed(self, value: float) -> Self:
        """Append, and fit at the fifth value that is not like all others."""
        cleaned = clean(value, seen_load=bool(self.values))
        if cleaned is None:
            return self
        raw = max(0.0, cleaned)
        values = (*self.values, raw)
        if self.fitted is not None:
            shown = math.log1p(raw) if self.in_log else raw
            return replace(self, values=values, fitted=_refitted(self.fitted, shown))
        if len(values) < 5 or len(set(values)) == 1:
            return replace(self, values=values)
        fitted, collapsed = _auto_fit(values, log1p=self.log1p)
        in_log = self.log1p
        if collapsed and not in_log:
            (fitted, _), in_log = _auto_fit(values, log1p=True), True
        return replace(self, values=values, fitted=fitted, in_log=in_log)

    def forecast(self) -> float:
        """One step ahead, never negative; the last value while there is no fit."""
        if not self.values:
            return 0.0
        if self.fitted is None:
            return self.values[-1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ahead = float(np.asarray(self.fitted.forecast(1))[0])
        if not math.isfinite(ahead):
            return self.values[-1]
        return max(0.0, math.expm1(ahead) if self.in_log else ahead)


def _statsmodels() -> Any:
    try:
        return importlib.import_module("statsmodels.tsa.arima.model")
    except ModuleNotFoundError as absent:
        raise SettingsError(
            "predictor arima: needs the package statsmodels, which is not installed (pip install statsmodels)"
        ) from absent


def _auto_fit(values: tuple[float, ...], *, log1p: bool) -> tuple[Any, bool]:
    """Best fit by AIC over p, q <= 2, and whether it has neither. None when none can be fitted.

    d comes first, from a KPSS test at 5 %: AIC cannot compare different d.
    """
    series = np.log1p(values) if log1p else np.asarray(values)
    d = _differences(series)
    best, collapsed, best_aic = None, False, math.inf
    for p, q in itertools.product(range(3), range(3)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                result = _statsmodels().ARIMA(series, order=(p, d, q), trend=_TREND[d]).fit()
            except (ValueError, np.linalg.LinAlgError):
                continue  # an order that cannot be fitted to so few values is no candidate
        if math.isfinite(result.aic) and result.aic < best_aic:
            best, collapsed, best_aic = result, p == q == 0, result.aic
    return best, collapsed


def _differences(series: Any) -> int:
    """How often to difference until the KPSS test does not reject a constant level; at most twice."""
    kpss = importlib.import_module("statsmodels.tsa.stattools").kpss
    for d in range(2):
        differenced = np.diff(series, d)
        if np.ptp(differenced) == 0:
            return d
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            p_value = kpss(differenced, nlags=int(3 * math.sqrt(len(differenced)) / 13))[1]
        if p_value >= 0.05:
            return d
    return 2


def _refitted(fitted: Any, shown: float) -> Any:
    """With one value more, and coefficients a few steps on from the old ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = {"start_params": fitted.params, "method_kwargs": {"maxiter": 5}}
        try:
            return fitted.append([shown], refit=True, fit_kwargs=start)
        except (ValueError, np.linalg.LinAlgError):
            return fitted.append([shown], refit=False)
