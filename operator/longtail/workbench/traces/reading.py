"""Reads a trace from CSV, gzipped CSV or NPZ, and says file, line and column of whatever is wrong with it.

Columns: ``arrival_seconds`` (or ``arrival_s``, or ``arrival_ms``), ``input_tokens``, ``output_tokens``, and
optionally ``reasoning_tokens`` (empty throughout = not known) and ``client`` (a number or a name). Others are
ignored. The reader is numpy's C parser: 1.4 million lines take about two seconds. Only when it refuses does
a slow pass look for the culprit.
"""

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from longtail.errors import TraceError
from longtail.workbench.traces.trace import Floats, Integers, Trace, find_fault

ARRIVAL_UNITS = {"arrival_seconds": 1.0, "arrival_s": 1.0, "arrival_ms": 1e-3}
"""Names an arrival column may have, and the seconds in its unit."""
REQUIRED = ("input_tokens", "output_tokens")
OPTIONAL = ("reasoning_tokens", "client")


def read_trace(path: Path | str, *, name: str | None = None) -> Trace:
    """The trace in ``path`` (``.csv``, ``.csv.gz`` or ``.npz``), called ``name`` or after the file.

    Raises:
        TraceError: the file is missing, truncated, empty, lacks a column, or holds a value that is not a
        finite
            number >= 0, or arrivals that do not ascend. The message names file, line and column.
    """
    path = Path(path)
    label = name or path.name.removesuffix(".gz").rsplit(".", 1)[0]
    try:
        if path.name.endswith(".npz"):
            return _from_npz(path, label)
        if path.name.endswith((".csv", ".csv.gz")):
            return _from_csv(path, label)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise TraceError(f"{path}: is neither .csv, .csv.gz nor .npz")


def _arrival_column(path: Path, names: list[str]) -> str:
    for column in ARRIVAL_UNITS:
        if column in names:
            break
    else:
        raise TraceError(f"{path}: line 1: no column {' or '.join(ARRIVAL_UNITS)} among {', '.join(names)}")
    for required in REQUIRED:
        if required not in names:
            raise TraceError(f"{path}: line 1: no column {required} among {', '.join(names)}")
    return column


# --- NPZ


def _from_npz(path: Path, label: str) -> Trace:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrival = _arrival_column(path, list(archive.files))
            columns: dict[str, Floats | Integers] = {"arrival_seconds": archive[arrival] * ARRIVAL_UNITS[arrival]}
            for column in (*REQUIRED, *OPTIONAL):
                if column in archive.files:
                    columns[column] = archive[column]
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise TraceError(f"{path}: is not a whole NPZ archive: {error}") from error
    for column, values in columns.items():
        if values.ndim != 1 or values.dtype.kind not in "iuf":
            raise TraceError(
                f"{path}: column {column}: needs one dimension of numbers, has {values.dtype}{values.shape}"
            )
    if not len(columns["arrival_seconds"]):
        raise TraceError(f"{path}: holds no request")
    fault = find_fault(columns)
    if fault is not None:
        raise TraceError(f"{path}: row {fault.row}, column {_written(fault.column, arrival)}: {fault.problem}")
    return _trace(label, columns)


# --- CSV


def _from_csv(path: Path, label: str) -> Trace:
    text = _text(path)
    header, _, body = text.partition("\n")
    names = [field.strip().strip('"') for field in header.split(",")]
    if not header.strip():
        raise TraceError(f"{path}: line 1: is empty, expected the names of columns")
    arrival = _arrival_column(path, names)
    if not body.strip():
        raise TraceError(f"{path}: holds no request")
    wanted = [arrival, *REQUIRED, *(column for column in OPTIONAL if column in names)]
    table = _numbers(path, body, names, wanted)
    columns: dict[str, Floats | Integers] = {"arrival_seconds": table[arrival] * ARRIVAL_UNITS[arrival]}
    columns.update({column: table[column] for column in wanted[1:]})
    if "reasoning_tokens" in columns and np.isnan(columns["reasoning_tokens"]).all():
        del columns["reasoning_tokens"]
    fault = find_fault(columns)
    if fault is not None:
        line = _line_of_row(body, fault.row)
        raise TraceError(f"{path}: line {line}, column {_written(fault.column, arrival)}: {fault.problem}")
    return _trace(label, columns)


def _text(path: Path) -> str:
    try:
        data = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    except EOFError as error:
        raise TraceError(f"{path}: the gzip stream is truncated: it ends before its end marker") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(f"{path}: is not gzip, or is damaged: {error}") from error
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TraceError(f"{path}: line {line}: is not UTF-8 text") from error


def _numbers(path: Path, body: str, names: list[str], wanted: list[str]) -> dict[str, Floats]:
    # numpy's parser takes no empty field; "not known" is NaN. Twice, because ",,," holds two overlapping
    # ",,".
    filled = body.replace(",,", ",nan,").replace(",,", ",nan,").replace(",\n", ",nan\n")
    filled = filled + "nan" if filled.endswith(",") else filled
    numeric = [column for column in wanted if column != "client"]
    try:
        table = np.loadtxt(
            io.StringIO(filled),
            delimiter=",",
            usecols=[names.index(column) for column in numeric],
            comments=None,
            quotechar='"',
            unpack=True,
            ndmin=2,
        )
        columns = dict(zip(numeric, table, strict=True))
        if "client" in wanted:
            columns["client"] = _clients(filled, names.index("client"))
    except ValueError as error:
        raise _culprit(path, body, names, numeric, error) from error
    return columns


def _clients(filled: str, column: int) -> Floats:
    """Client numbers; names become numbers in alphabetical order."""
    try:
        return np.loadtxt(io.StringIO(filled), delimiter=",", usecols=column, comments=None, quotechar='"', ndmin=1)
    except ValueError:
        written = np.loadtxt(
            io.StringIO(filled), str, delimiter=",", usecols=column, comments=None, quotechar='"', ndmin=1
        )
        return np.unique(written, return_inverse=True)[1].astype(np.float64)


def _culprit(path: Path, body: str, names: list[str], wanted: list[str], error: ValueError) -> TraceError:
    """The error for the first line that numpy cannot have read, found by a slow second look."""
    for line, text in _rows(body):
        fields = [field.strip().strip('"') for field in text.split(",")]
        if len(fields) != len(names):
            return TraceError(f"{path}: line {line}: has {len(fields)} fields where the header has {len(names)}")
        for column in wanted:
            written = fields[names.index(column)]
            try:
                float(written or "nan")
            except ValueError:
                return TraceError(f"{path}: line {line}, column {column}: {written!r} is not a number")
    return TraceError(f"{path}: {error}")


def _rows(body: str) -> Iterator[tuple[int, str]]:
    """(line number, text) of the lines that hold a request; the header is line 1."""
    for line, text in enumerate(body.split("\n"), start=2):
        if text.strip():
            yield line, text


def _line_of_row(body: str, row: int) -> int:
    for index, (line, _) in enumerate(_rows(body)):
        if index == row:
            return line
    raise AssertionError(row)


def _written(column: str, arrival: str) -> str:
    return arrival if column == "arrival_seconds" else column


def _trace(label: str, columns: dict[str, Floats | Integers]) -> Trace:
    whole = {column: values.astype(np.int64) for column, values in columns.items() if column != "arrival_seconds"}
    return Trace(
        name=label,
        arrival_seconds=columns["arrival_seconds"].astype(np.float64),
        input_tokens=whole["input_tokens"],
        output_tokens=whole["output_tokens"],
        reasoning_tokens=whole.get("reasoning_tokens"),
        client=whole.get("client"),
    )
