import gzip
import zipfile

import numpy as np
import pytest

from longtail.errors import TraceError
from longtail.workbench.traces import read_trace

GOOD = "arrival_seconds,input_tokens,output_tokens\n0,10,100\n1.5,20,200\n"


def written(tmp_path, text, name="trace.csv"):
    path = tmp_path / name
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def test_a_csv_is_read_in_order_and_named_after_its_file(tmp_path):
    trace = read_trace(written(tmp_path, GOOD))
    assert trace.name == "trace"
    assert trace.arrival_seconds.tolist() == [0.0, 1.5]
    assert trace.input_tokens.tolist() == [10, 20]
    assert trace.output_tokens.tolist() == [100, 200]
    assert trace.reasoning_tokens is None
    assert trace.client is None


@pytest.mark.parametrize(
    ("header", "value"),
    [
        pytest.param("arrival_seconds", "1.5", id="seconds"),
        pytest.param("arrival_s", "1.5", id="s"),
        pytest.param("arrival_ms", "1500", id="milliseconds"),
    ],
)
def test_the_arrival_column_says_its_unit(tmp_path, header, value):
    path = written(tmp_path, f"{header},input_tokens,output_tokens\n{value},1,1\n")
    assert read_trace(path).arrival_seconds.tolist() == [1.5]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GOOD.replace("\n", "\r\n"), id="windows line ends"),
        pytest.param("\ufeff" + GOOD, id="byte order mark"),
        pytest.param(GOOD.rstrip("\n"), id="no newline at the end"),
        pytest.param(GOOD + "\n\n", id="blank lines at the end"),
        pytest.param(GOOD.replace("\n1.5", "\n\n1.5"), id="blank line inside"),
        pytest.param('"arrival_seconds","input_tokens","output_tokens"\n"0","10","100"\n1.5,20,200\n', id="quotes"),
        pytest.param(
            "model,output_tokens,arrival_seconds,input_tokens\nr1,100,0,10\n,200,1.5,20\n",
            id="other order and columns",
        ),
    ],
)
def test_what_spreadsheets_do_to_a_csv_changes_nothing(tmp_path, text):
    trace = read_trace(written(tmp_path, text))
    assert trace.arrival_seconds.tolist() == [0.0, 1.5]
    assert trace.output_tokens.tolist() == [100, 200]


def test_gzip_and_npz_hold_the_same_as_csv(tmp_path):
    plain = read_trace(written(tmp_path, GOOD))
    zipped = read_trace(written(tmp_path, GOOD, "zipped.csv.gz"))
    np.savez(
        tmp_path / "arrays.npz",
        arrival_ms=np.array([0, 1500], np.uint32),
        input_tokens=np.array([10, 20], np.uint16),
        output_tokens=np.array([100, 200], np.uint16),
    )
    arrays = read_trace(tmp_path / "arrays.npz")
    assert zipped.name == "zipped"
    for other in (zipped, arrays):
        assert other.arrival_seconds.tolist() == plain.arrival_seconds.tolist()
        assert other.output_tokens.tolist() == plain.output_tokens.tolist()
        assert other.output_tokens.dtype == np.int64


def test_reasoning_that_is_empty_throughout_is_not_known(tmp_path):
    path = written(tmp_path, "arrival_s,input_tokens,output_tokens,reasoning_tokens\n0,1,9,\n1,1,9,\n")
    assert read_trace(path).reasoning_tokens is None


def test_clients_may_be_numbers_or_names(tmp_path):
    head = "arrival_s,input_tokens,output_tokens,reasoning_tokens,client\n"
    numbers = read_trace(written(tmp_path, head + "0,1,9,3,7\n1,1,9,4,5\n"))
    names = read_trace(written(tmp_path, head + "0,1,9,3,bob\n1,1,9,4,alice\n2,1,9,4,bob\n"))
    assert numbers.client.tolist() == [7, 5]
    assert numbers.reasoning_tokens.tolist() == [3, 4]
    assert names.client.tolist() == [1, 0, 1]


HEAD = "arrival_s,input_tokens,output_tokens\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(HEAD + "0,1,1\n2,1,1\n1,1,1\n", ["line 4", "arrival_s", "1 comes after 2"], id="unsorted"),
        pytest.param(HEAD + "0,1,1\n1,-5,1\n", ["line 3", "input_tokens", "-5 is negative"], id="negative"),
        pytest.param(HEAD + "0,1,nan\n", ["line 2", "output_tokens", "nan is not a number"], id="NaN"),
        pytest.param(HEAD + "0,1,inf\n", ["line 2", "output_tokens", "inf is not finite"], id="infinite"),
        pytest.param(HEAD + "0,1,\n", ["line 2", "output_tokens", "is not a number"], id="empty last field"),
        pytest.param(HEAD + "0,,1\n", ["line 2", "input_tokens", "is not a number"], id="empty field"),
        pytest.param(HEAD + "0,1,1.5\n", ["line 2", "output_tokens", "not a whole number"], id="half a token"),
        pytest.param(HEAD + "0,1,1\n1,one,1\n", ["line 3", "input_tokens", "'one' is not a number"], id="word"),
        pytest.param(HEAD + "0,1,1\n\n1,x,1\n", ["line 4", "input_tokens"], id="word after a blank line"),
        pytest.param(HEAD + "0,1,1\n1,1\n", ["line 3", "has 2 fields", "header has 3"], id="cut line"),
        pytest.param(HEAD + "\n\n3,1,1\n\n1,1,1\n", ["line 6", "comes after"], id="unsorted among blank lines"),
        pytest.param(HEAD, ["holds no request"], id="header only"),
        pytest.param("", ["line 1", "is empty"], id="empty file"),
        pytest.param("input_tokens,output_tokens\n1,1\n", ["line 1", "no column arrival_seconds"], id="no arrival"),
        pytest.param("arrival_s,input_tokens\n0,1\n", ["line 1", "no column output_tokens"], id="no output"),
        pytest.param(b"\xff\xfe\x00", ["line 1", "not UTF-8"], id="not text"),
        pytest.param(
            "arrival_s,input_tokens,output_tokens,reasoning_tokens\n0,1,5,3\n1,1,5,\n",
            ["line 3", "reasoning_tokens", "is not a number"],
            id="reasoning missing in one line",
        ),
        pytest.param(
            "arrival_s,input_tokens,output_tokens,reasoning_tokens\n0,1,5,6\n",
            ["line 2", "reasoning_tokens", "6 is more than the 5"],
            id="more reasoning than output",
        ),
    ],
)
def test_a_bad_csv_is_refused_by_file_line_and_column(tmp_path, text, says):
    path = written(tmp_path, text)
    with pytest.raises(TraceError) as refused:
        read_trace(path)
    for words in [str(path), *says]:
        assert words in str(refused.value)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(lambda data: data[:-9], "truncated", id="truncated"),
        pytest.param(lambda data: data[: len(data) // 2], "truncated", id="half"),
        pytest.param(lambda _: b"plain text", "not gzip", id="not gzip"),
        pytest.param(lambda data: data[:12] + b"\xff\xff\xff" + data[15:], "damaged", id="flipped bytes"),
    ],
)
def test_a_damaged_gzip_is_refused_by_name(tmp_path, damage, says):
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(damage(gzip.compress((GOOD * 50).encode())))
    with pytest.raises(TraceError, match=says) as refused:
        read_trace(path)
    assert str(path) in str(refused.value)


def arrays(**changes):
    good = {
        "arrival_s": np.array([0.0, 1.0]),
        "input_tokens": np.array([1, 1]),
        "output_tokens": np.array([5, 5]),
    }
    return {name: values for name, values in {**good, **changes}.items() if values is not None}


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        pytest.param(arrays(arrival_s=np.array([1.0, 0.5])), ["row 1", "arrival_s", "comes after"], id="unsorted"),
        pytest.param(arrays(input_tokens=np.array([1, -1])), ["row 1", "input_tokens", "negative"], id="negative"),
        pytest.param(arrays(output_tokens=np.array([1.0, np.nan])), ["row 1", "output_tokens"], id="NaN"),
        pytest.param(arrays(output_tokens=np.array([1])), ["output_tokens", "has 1 values"], id="too short"),
        pytest.param(arrays(output_tokens=None), ["no column output_tokens"], id="no output"),
        pytest.param(arrays(arrival_s=np.array([]), input_tokens=np.array([]), output_tokens=np.array([])),
                     ["holds no request"], id="empty"),
        pytest.param(arrays(output_tokens=np.array([[1], [2]])), ["output_tokens", "one dimension"], id="matrix"),
        pytest.param(arrays(output_tokens=np.array(["a", "b"])), ["output_tokens", "numbers"], id="words"),
    ],
)  # fmt: skip
def test_a_bad_npz_is_refused_by_row_and_column(tmp_path, columns, says):
    path = tmp_path / "trace.npz"
    np.savez(path, **columns)
    with pytest.raises(TraceError) as refused:
        read_trace(path)
    for words in [str(path), *says]:
        assert words in str(refused.value)


def test_a_truncated_npz_is_refused(tmp_path):
    path = tmp_path / "trace.npz"
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TraceError, match="not a whole NPZ"):
        read_trace(path)


def test_an_npz_with_pickled_objects_is_refused_unread(tmp_path):
    path = tmp_path / "trace.npz"
    np.savez(path, **arrays(output_tokens=np.array([5, None], dtype=object)))
    with pytest.raises(TraceError, match="not a whole NPZ"):
        read_trace(path)


def test_a_zip_that_is_no_npz_lacks_the_columns(tmp_path):
    path = tmp_path / "trace.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(TraceError, match="no column"):
        read_trace(path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("gone.csv", "cannot be read", id="missing"),
        pytest.param("a.parquet", "neither", id="other kind"),
    ],
)
def test_a_file_that_is_not_there_or_not_a_trace_is_refused(tmp_path, name, says):
    with pytest.raises(TraceError, match=says):
        read_trace(tmp_path / name)
