"""Prometheus' remote-write 1.0 protocol, as far as filling a database with the past needs it.

The message is protobuf (``prompb.WriteRequest``) in a snappy block. Both are written by hand: of protobuf four
fixed shapes are needed, and a snappy block may consist of one literal. A sample always takes 18 bytes, so a series is
one numpy array.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_TIME_BYTES = 6
"""Of a time in milliseconds as a varint: 2^35 .. 2^42, the years 1971 to 2109."""
_SAMPLE = np.dtype(
    [
        ("sample", "u1"),
        ("length", "u1"),
        ("value_tag", "u1"),
        ("value", "<f8"),
        ("time_tag", "u1"),
        ("time", "u1", _TIME_BYTES),
    ]
)
_MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """One series with its samples in order of time."""

    labels: Mapping[str, str]
    """With ``__name__``."""
    unix_seconds: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]


def write_requests(series: Iterable[TimeSeries]) -> Iterator[bytes]:
    """Bodies of requests that write the series, a few megabytes each."""
    parts: list[bytes] = []
    size = 0
    for one in series:
        encoded = _field(1, _time_series(one))
        parts.append(encoded)
        size += len(encoded)
        if size > _MOST_BYTES:
            yield snappy_block(b"".join(parts))
            parts, size = [], 0
    if parts:
        yield snappy_block(b"".join(parts))


def snappy_block(content: bytes) -> bytes:
    """The content as one literal, uncompressed.

    >>> snappy_block(b"abc").hex()
    '03fc02000000616263'
    """
    return varint(len(content)) + b"\xfc" + struct.pack("<I", len(content) - 1) + content


def varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first.

    >>> varint(300).hex()
    'ac02'
    """
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _time_series(one: TimeSeries) -> bytes:
    labels = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in sorted(one.labels.items())
    )
    samples = np.zeros(len(one.values), dtype=_SAMPLE)
    samples["sample"], samples["length"] = 2 << 3 | 2, _SAMPLE.itemsize - 2
    samples["value_tag"], samples["value"] = 1 << 3 | 1, one.values
    samples["time_tag"] = 2 << 3
    milliseconds = np.rint(one.unix_seconds * 1000).astype(np.int64)
    groups = milliseconds[:, None] >> (7 * np.arange(_TIME_BYTES)) & 0x7F
    groups[:, :-1] |= 0x80
    samples["time"] = groups
    return labels + samples.tobytes()


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content
