"""The real traces: where they are, and how scenarios are made of them.

They are not part of the project. ``LONGTAIL_DATA`` names their directory, else ``../shared/data`` beside the
checkout is looked at; where neither exists, whoever needs them says so and does without.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from longtail.errors import TraceError
from longtail.workbench.traces.arrivals import renewal
from longtail.workbench.traces.lengths import Empirical, LengthLaw
from longtail.workbench.traces.reading import read_trace
from longtail.workbench.traces.trace import Floats, Integers, Trace

ENVIRONMENT_VARIABLE = "LONGTAIL_DATA"
DAY_SECONDS = 86_400
WINDOW_SECONDS = 600
"""ServeGen counts requests in windows of ten minutes."""


def data_directory() -> Path | None:
    """Directory of the real traces, or None where there is none."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    directory = Path(named) if named else Path(__file__).resolve().parents[5] / "shared" / "data"
    return directory if directory.is_dir() else None


def r1_day(data: Path) -> Trace:
    """ServeGen's DeepSeek-R1 production day at its native rate: 1,383,669 requests of 73 clients.

    Counts per client and ten minutes are exact, gaps inside follow each client's fitted law, lengths are
    drawn from each client's own six-hour distributions (ServeGen, arXiv 2505.09999).
    """
    return read_trace(data / "servegen_deepseek_r1" / "composed_day.npz", name="r1-day")


def r1_lengths(data: Path) -> Empirical:
    """Output lengths of the R1 day, mixed over clients and hours by their rates."""
    path = data / "servegen_deepseek_r1" / "output_tokens_mixture.csv.gz"
    try:
        table = np.loadtxt(path, delimiter=",", skiprows=1)
    except (OSError, EOFError, ValueError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error
    return Empirical(values=table[:, 0].astype(np.int64), weights=table[:, 1])


def clients_of(trace: Trace, clients: Sequence[int], *, name: str) -> Trace:
    """The requests of some clients only: a smaller service with its bursts whole, unlike a thinned one.

    Raises:
        TraceError: the trace does not say who its clients are, or they sent nothing.
    """
    if trace.client is None:
        raise TraceError(f"{trace.name}: has no column client to choose from")
    part = trace.select(np.isin(trace.client, list(clients)), name=name)
    if not len(part):
        raise TraceError(f"{trace.name}: clients {list(clients)} sent no request")
    return part


def language_pool_day(
    data: Path, pool: str, *, day: int, mean_per_second: float, lengths: LengthLaw, seed: int
) -> Trace:
    """One day of a ServeGen language pool's arrivals, scaled to a mean rate, with lengths of another law.

    Every client keeps the shape of its day (counts per ten minutes) and its own burstiness: gaps are Gamma
    with the client's count-weighted coefficient of variation. Scaling the rate and not the burstiness is
    ServeGen's own convention; it is pessimistic for small services.

    Args:
        data: directory of the real traces.
        pool: ``m-large``, ``m-mid`` or ``m-small``.
        day: 0..13.
        mean_per_second: rate of the whole trace over the day.
        lengths: what output lengths are drawn from.
        seed: of every draw.

    Raises:
        TraceError: the pool cannot be read, or the day holds windows without any request (gaps in the data).
    """
    path = data / "servegen_language_rates" / f"{pool}.npz"
    try:
        with np.load(path) as archive:
            today = slice(day * 144, (day + 1) * 144)
            counts = archive["count"][:, today].astype(np.float64)
            variation = archive["cv"][:, today].astype(np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error
    if counts.shape[1] != 144 or (counts.sum(axis=0) == 0).any():
        raise TraceError(f"{path}: day {day} is not whole: it has windows without a request")
    rng = np.random.default_rng(seed)
    per_second = counts * (mean_per_second * DAY_SECONDS / counts.sum() / WINDOW_SECONDS)
    arrivals, clients = _pooled(per_second, counts, variation, rng)
    return Trace(
        name=f"{pool}-day{day}",
        arrival_seconds=arrivals,
        input_tokens=np.ones(len(arrivals), np.int64),
        output_tokens=lengths.sample(len(arrivals), rng),
        client=clients,
    )


def _pooled(per_second: Floats, counts: Floats, variation: Floats, rng: np.random.Generator) -> tuple[Floats, Integers]:
    """Renewal arrivals of all clients, merged in order of time; (arrivals, client of each)."""
    arrivals, clients = [], []
    for client in np.flatnonzero(counts.sum(axis=1) > 0):
        # A window with fewer than two requests has no gap and is published with cv 0: its count still weighs
        # nothing beside the others'.
        cv = float(np.average(variation[client], weights=counts[client]))
        drawn = renewal(np.repeat(per_second[client], WINDOW_SECONDS), max(cv, 0.1), rng)
        arrivals.append(drawn)
        clients.append(np.full(len(drawn), client, np.int64))
    times, owners = np.concatenate(arrivals), np.concatenate(clients)
    order = np.argsort(times, kind="stable")
    return times[order], owners[order]


def control_day(data: Path, source: str, *, seed: int) -> Trace:
    """A non-reasoning hour, repeated for a day: ``azure-conversation``, ``azure-code`` or ``mooncake``.

    Mooncake's clock ticks every 3 s; its requests are spread evenly at random inside each tick, since 30
    requests at one instant are the clock's doing. A repeated hour has no daily shape; it serves as control
    for bursts and lengths only.
    """
    folder, file, tick = {
        "azure-conversation": ("azure_llm_2023", "conv.compact.csv.gz", 0.0),
        "azure-code": ("azure_llm_2023", "code.compact.csv.gz", 0.0),
        "mooncake": ("mooncake_fast25", "conversation.compact.csv.gz", 3.0),
    }[source]
    hour = read_trace(data / folder / file, name=source)
    if tick:
        spread = hour.arrival_seconds + np.random.default_rng(seed).uniform(0, tick, len(hour))
        order = np.argsort(spread, kind="stable")
        hour = Trace(
            name=source,
            arrival_seconds=spread[order],
            input_tokens=hour.input_tokens[order],
            output_tokens=hour.output_tokens[order],
        )
    period = float(np.ceil(hour.span_seconds))
    return hour.repeated(int(np.ceil(DAY_SECONDS / period)), period).window(0, DAY_SECONDS)
