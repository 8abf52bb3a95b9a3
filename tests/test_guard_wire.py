"""Requests read once and written anew: what was inspected is what every parser will see."""

from __future__ import annotations

import json
import math
import struct
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from withstand.guard.wire import (
    DATATYPES,
    Inference,
    Limits,
    RequestError,
    read_rows,
    read_v2,
    write_rows,
    write_v2,
)

LIMITS = Limits()


def tensor(**changes: Any) -> dict[str, Any]:
    told = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.1, 0.2, 0.3, 0.4]}
    told |= changes
    return {key: value for key, value in told.items() if value is not None}


def request(*tensors: dict[str, Any], **rest: Any) -> bytes:
    return json.dumps({"inputs": list(tensors or (tensor(),)), **rest}).encode()


def read(text: bytes, length: str | None = None, **limits: int) -> Inference:
    return read_v2(text, length, Limits(**limits))


def first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


PARSERS = {
    "last wins": json.loads,
    "first wins": lambda text: json.loads(text, object_pairs_hook=first_wins),
    "orjson": orjson.loads,
}


@pytest.mark.parametrize("nested", [False, True])
def test_flat_and_nested_data_are_one_and_the_same(nested: bool) -> None:
    data = [[0.1, 0.2], [0.3, 0.4]] if nested else [0.1, 0.2, 0.3, 0.4]
    asked = read(request(tensor(shape=[2, 2], data=data), id="a"))
    assert asked.id == "a"
    (named,) = asked.inputs
    assert named.values.dtype == np.float32
    assert named.values.tolist() == np.float32([[0.1, 0.2], [0.3, 0.4]]).tolist()


def test_raw_tensors_come_in_the_order_of_the_inputs() -> None:
    one, two = np.float32([1, 2]), np.uint8([3, 4, 5])
    head = json.dumps({
        "inputs": [
            tensor(name="a", shape=[2], data=None, parameters={"binary_data_size": 8, "k": "v"}),
            tensor(name="t", shape=[1], datatype="INT64", data=[7]),
            tensor(name="b", shape=[3], datatype="UINT8", data=None,
                   parameters={"binary_data_size": 3}),
        ],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    asked = read(head + one.tobytes() + two.tobytes(), str(len(head)))
    assert [named.values.tolist() for named in asked.inputs] == [[1, 2], [7], [3, 4, 5]]
    assert asked.binary
    assert asked.inputs[0].parameters == {"k": "v"}


@pytest.mark.parametrize("turn", [1, -1])
def test_what_stands_beside_raw_numbers_goes_on_whatever_was_asked_before(turn: int) -> None:
    told = {"name": f"beside{turn}"}
    requests = [
        request(tensor(**told)),
        request(tensor(**told), id="a"),
        request(tensor(**told), parameters={"k": 1}),
        request(tensor(**told), parameters={"binary_data_output": True}),
        request(tensor(**told), outputs=[{"name": "y"}]),
        request(tensor(**told, parameters={"k": "v"})),
        request(tensor(**told), tensor(name="other")),
        request(tensor(**told, shape=[2, 2])),
        request(tensor(**told, datatype="FP64")),
        request(tensor(**told, data=[9, 8, 7, 6])),
    ][::turn]
    for text in requests * 2:
        asked = read(text)
        body, headers = write_v2(asked, raw=True)
        length = int(headers["inference-header-content-length"])
        expected = json.loads(write_v2(asked, raw=False).body)
        for one, named in zip(expected["inputs"], asked.inputs, strict=True):
            del one["data"]
            one.setdefault("parameters", {})["binary_data_size"] = named.values.nbytes
        assert json.loads(body[:length]) == expected
        assert body[length:] == b"".join(named.values.tobytes() for named in asked.inputs)


@pytest.mark.parametrize("raw", [False, True])
def test_text_is_carried_as_bytes(raw: bool) -> None:
    asked = read(request(tensor(shape=[2, 1], datatype="BYTES", data=[["naïve"], ["\u200b:"]])))
    written = write_v2(asked, raw=raw)
    again = read(written.body, written.headers.get("inference-header-content-length"))
    assert again.inputs[0].values.ravel().tolist() == ["naïve".encode(), "\u200b:".encode()]


REFUSED: list[tuple[str, bytes, str | None]] = [
    ("not_json", b"{", None),
    ("not_json", b'{"inputs": [NaN]}', None),
    ("not_json", request(tensor(data=[math.nan, 1, 1, 1])), None),
    ("not_json", request().replace(b"0.1", b"1e999"), None),
    ("not_json", b'{"inputs": "\xff"}', None),
    ("not_json", b"[" * 100_000 + b"]" * 100_000, None),
    ("id", request().replace(b"{", b'{"id": ' + b'["",' * 40 + b"0" + b"]" * 40 + b",", 1), None),
    ("not_json", request(**{"\0": 1}), None),
    ("data", request(tensor(data=[0.1, [0.2], 0.3, 0.4])), None),
    ("data", request(tensor(data=[0.1, [], 0.2, 0.3])), None),
    ("data", request(tensor(shape=[2, 2], data=[[0.1, [0.2]], [0.3, 0.4]])), None),
    ("data", request(tensor(shape=[2, 2], data=[[0.1, 0.2, 0.3], [0.4]])), None),
    ("data", request(tensor(name="[", shape=[2], data=[0.1, [0.2]])), None),
    ("form", b"[]", None),
    ("form", b'{"inputs": [3]}', None),
    ("unknown_key", request(also=1), None),
    ("unknown_key", request(tensor(content=1)), None),
    ("inputs", b'{"inputs": []}', None),
    ("inputs", b"{}", None),
    ("inputs", request(*[tensor(name=str(i)) for i in range(17)]), None),
    ("name", request(tensor(name="")), None),
    ("name", request(tensor(name=3)), None),
    ("duplicate_name", request(tensor(), tensor()), None),
    ("id", request(id=3), None),
    ("datatype", request(tensor(datatype="FP8")), None),
    ("shape", request(tensor(shape=[])), None),
    ("shape", request(tensor(shape=[1, -4])), None),
    ("shape", request(tensor(shape=[-1, -4])), None),
    ("shape", request(tensor(shape=[0, 4])), None),
    ("shape", request(tensor(shape=[1.0, 4])), None),
    ("shape", request(tensor(shape=[True, 4])), None),
    ("shape", request(tensor(shape=[1] * 9)), None),
    ("too_large", request(tensor(shape=[2**40, 2**40])), None),
    ("data", request(tensor(shape=[2**70])), None),
    ("data", request(tensor(data=[0.1, 0.2, 0.3])), None),
    ("data", request(tensor(data=[[0.1, 0.2], [0.3]])), None),
    ("data", request(tensor(data=[[0.1, 0.2], [0.3, 0.4]])), None),
    ("data", request(tensor(data=[0.1, None, 0.3, 0.4])), None),
    ("data", request(tensor(data=[0.1, "0.2", 0.3, 0.4])), None),
    ("data", request(tensor(data=[0.1, {"a": 1}, 0.3, 0.4])), None),
    ("data", request(tensor(data="abcd")), None),
    ("data", request(tensor(data=[True, False, True, True])), None),
    ("data", request(tensor(data=None)), None),
    ("data", request(tensor(datatype="UINT8", data=[1, 2, 3, 256])), None),
    ("data", request(tensor(datatype="UINT8", data=[1, 2, 3, -1])), None),
    ("data", request(tensor(datatype="INT32", data=[1, 2, 3, 4.5])), None),
    ("data", request(tensor(datatype="INT64", data=[1, 2, 3, 2**63])), None),
    ("data", request(tensor(datatype="INT64", data=[1, 2, 3, 2**80])), None),
    ("data", request(tensor(datatype="BOOL", data=[1, 0, 1, 1])), None),
    ("data", request(tensor(datatype="BYTES", data=["a", "b", "c"])), None),
    ("data", request(tensor(data=[1e39, 0, 0, 0])), None),
    ("too_large", request(tensor(datatype="BYTES", data=["a" * 70_000, "", "", ""])), None),
    ("parameters", request(parameters={"a": [1]}), None),
    ("parameters", request(parameters={str(i): i for i in range(17)}), None),
    ("form", request(parameters=3), None),
    ("outputs", request(outputs=[{"name": 3}]), None),
    ("outputs", request(outputs={}), None),
    ("header_length", request(), "-1"),
    ("header_length", request(), "0"),
    ("header_length", request(), "1e2"),
    ("header_length", request(), "²"),
    ("header_length", request(), "99999999999999999999"),
    ("not_json", request(), "5"),
    ("raw_bytes", request() + b"left", str(len(request()))),
]


@pytest.mark.parametrize(("reason", "body", "length"), REFUSED)
def test_what_breaks_the_protocol_is_refused_and_counted(
    reason: str, body: bytes, length: str | None
) -> None:
    with pytest.raises(RequestError) as refused:
        read(body, length)
    assert refused.value.reason == reason
    assert refused.value.status in (400, 413)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("size", "data", "datatype", "shape"),
    [
        (7, bytes(7), "FP32", [2]), (9, bytes(9), "FP32", [2]), (8, bytes(4), "FP32", [2]),
        (-8, bytes(8), "FP32", [2]), ("8", bytes(8), "FP32", [2]), (True, b"\0", "INT8", [1]),
        (8, struct.pack("<ff", math.nan, 1), "FP32", [2]), (2, b"\x00\x02", "BOOL", [2]),
        (6, b"\x05\0\0\0ab", "BYTES", [1]), (3, b"\0\0\0", "BYTES", [1]),
        (8, b"\xff\xff\xff\xffabcd", "BYTES", [1]), (7, b"\x01\0\0\0abc", "BYTES", [1]),
    ],
)  # fmt: skip
def test_raw_data_that_do_not_fit_are_refused(
    size: Any, data: bytes, datatype: str, shape: list[int]
) -> None:
    parameters = {"binary_data_size": size}
    told = tensor(shape=shape, datatype=datatype, data=None, parameters=parameters)
    head = request(told)
    with pytest.raises(RequestError):
        read(head + data, str(len(head)))


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [{"name":"x","shape":[1],"datatype":"FP32","data":[0],"data":[9]}]}',
        b'{"inputs": [{"name":"x","shape":[1],"datatype":"FP32","data":[0],"d\\u0061ta":[9]}]}',
        b'{"inputs": [], "inputs": [{"name":"x","shape":[1],"datatype":"FP32","data":[0]}]}',
        # The escaped colon in a text makes up for the one of the second key.
        b'{"id":"\\u003a", "inputs":[{"name":"x","shape":[1],"shape":[1],"datatype":"FP32",'
        b'"data":[0]}]}',
        b'{"id":"a:b", "id":"c", "inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[0]}]}',
    ],
)
def test_a_key_that_comes_twice_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        read(body)
    assert refused.value.reason == "duplicate_key"


def test_colons_and_escapes_are_allowed_in_text() -> None:
    assert read(request(id='a:b::c"\\:\n')).id == 'a:b::c"\\:\n'
    assert read(request(tensor(name="x:0"), id="::")).inputs[0].name == "x:0"


@pytest.mark.parametrize(
    ("datatype", "most", "more"),
    [("FP32", "3.4028235e38", "3.4028236e38"), ("FP16", "65519.99", "65520")],
)
def test_the_highest_number_in_fewest_digits_is_one(datatype: str, most: str, more: str) -> None:
    kind = DATATYPES[datatype]
    for sign in ("", "-"):
        body = (
            f'{{"inputs":[{{"name":"x","shape":[1],"datatype":"{datatype}","data":[{sign}%s]}}]}}'
        )
        found = read((body % most).encode()).inputs[0]
        assert abs(found.values.item()) == float(np.finfo(kind).max)
        assert read(write_v2(read((body % most).encode()), raw=False).body) is not None
        with pytest.raises(RequestError, match="do not fit"):
            read((body % more).encode())


def test_limits_are_those_that_were_given() -> None:
    assert read(request(), elements=4).inputs[0].values.size == 4
    for limits in ({"elements": 3}, {"body": 20}):
        with pytest.raises(RequestError) as refused:
            read(request(), **limits)
        assert refused.value.status == 413
    two = request(tensor(), tensor(name="y"))
    with pytest.raises(RequestError, match="more than 7 elements"):
        read(two, elements=7)


names = st.text(min_size=1, max_size=8)
plain = st.one_of(st.text(max_size=6), st.integers(-(2**53), 2**53), st.booleans(), st.none())
keys = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=6)
parameters = st.dictionaries(keys, plain, max_size=3).filter(
    lambda p: not set(p) & {"binary_data_size", "binary_data", "binary_data_output"}
)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    datatype = draw(st.sampled_from([*sorted(DATATYPES), "BYTES"]))
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    size = math.prod(shape)
    if datatype == "BYTES":
        value: st.SearchStrategy[Any] = st.text(max_size=5)
    elif datatype == "BOOL":
        value = st.booleans()
    elif datatype.startswith("FP"):
        width = int(datatype[2:])
        value = st.floats(width=width, allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    else:
        info = np.iinfo(DATATYPES[datatype])
        value = st.integers(int(info.min), int(info.max))
    told = {"name": draw(names), "shape": shape, "datatype": datatype}
    told["data"] = draw(st.lists(value, min_size=size, max_size=size))
    if draw(st.booleans()):
        told["parameters"] = draw(parameters)
    return told


@settings(max_examples=150, deadline=None)
@given(
    st.lists(tensors(), min_size=1, max_size=3, unique_by=lambda t: t["name"]),
    st.text(max_size=6),
    parameters,
    st.booleans(),
)
def test_every_parser_sees_what_was_inspected(
    told: list[dict[str, Any]], identity: str, more: dict[str, Any], raw: bool
) -> None:
    body = json.dumps({"id": identity, "parameters": more, "inputs": told}).encode()
    asked = read(body)
    written = write_v2(asked, raw=raw)
    length = written.headers.get("inference-header-content-length")
    again = read(written.body, length)
    for before, after in zip(asked.inputs, again.inputs, strict=True):
        assert (before.name, before.datatype) == (after.name, after.datatype)
        assert before.parameters == after.parameters
        assert before.values.shape == after.values.shape
        assert before.values.tobytes() == after.values.tobytes() or (
            before.values.tolist() == after.values.tolist()
        )
    assert (again.id, again.parameters) == (asked.id, asked.parameters)
    head = written.body if length is None else written.body[: int(length)]
    seen = [parse(head) for parse in PARSERS.values()]
    assert all(one == seen[0] for one in seen)
    if not raw:
        for named, one in zip(asked.inputs, seen[0]["inputs"], strict=True):
            if named.datatype not in ("BYTES", "BOOL"):
                forwarded = np.asarray(one["data"], object).astype(DATATYPES[named.datatype])
                assert forwarded.tolist() == named.values.ravel().tolist()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=4)))
def test_no_bytes_bring_it_down(body: bytes, length: str | None) -> None:
    for form in (lambda: read(body, length), lambda: read_rows(body, "mlflow", LIMITS)):
        with suppress(RequestError):
            form()


values = st.recursive(
    st.one_of(plain, st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "inputs", "parameters", "x"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["inputs", "instances", "id", "outputs"]), values))
def test_no_form_brings_it_down(content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    for form in (lambda: read(body), lambda: read_rows(body, "v1", LIMITS)):
        with suppress(RequestError):
            form()


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("v1", {"instances": [[1, 2.5], [3, 4]]}),
        ("mlflow", {"inputs": [[1, 2.5], [3, 4]]}),
        ("mlflow", {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2.5], [3, 4]]}}),
    ],
)
def test_rows_without_datatypes_go_on_as_they_were_read(form: Any, content: Any) -> None:
    asked = read_rows(json.dumps(content).encode(), form, LIMITS)
    assert asked.inputs[0].values.tolist() == [[1, 2.5], [3, 4]]
    assert json.loads(write_rows(asked).body) == content


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity"])
def test_numbers_that_json_does_not_have_are_named(number: bytes) -> None:
    with pytest.raises(RequestError, match="has no NaN and no Infinity"):
        read_rows(b'{"instances": [[' + number + b"]]}", "v1", LIMITS)
    for other in (
        b'{"instances": [[',
        b'{"instances": [["NaN", 1]',
        b'{"instances": [1], "NaNo": }',
    ):
        with pytest.raises(RequestError, match=r"not JSON$"):
            read_rows(other, "v1", LIMITS)


def test_a_frame_of_records_goes_on_as_a_split_one() -> None:
    """Its columns are those of the first record, whatever their order in the others."""
    body = b'{"dataframe_records": [{"a": 1, "b": 2.5}, {"b": 4, "a": 3}]}'
    asked = read_rows(body, "mlflow", LIMITS)
    assert (asked.inputs[0].name, asked.inputs[0].datatype) == ("dataframe_split", "FP64")
    found = json.loads(write_rows(asked).body)
    assert found == {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2.5], [3, 4]]}}
    whole = read_rows(b'{"dataframe_records": [{"[a": 9007199254740993}]}', "mlflow", LIMITS)
    assert whole.inputs[0].values.tolist() == [[2**53 + 1]]
    with pytest.raises(RequestError, match="key twice"):
        read_rows(b'{"dataframe_records": [{"a": 1, "a": 2}]}', "mlflow", LIMITS)
    few = replace(LIMITS, elements=3)
    with pytest.raises(RequestError, match="more than 3 elements"):
        read_rows(body, "mlflow", few)


@pytest.mark.parametrize("record", [b"{}", b'{"a":1}', b"1"])
def test_megabytes_of_small_records_do_not_hold_others_up(record: bytes) -> None:
    many = 8 * 2**20 // (len(record) + 1)
    body = b'{"dataframe_records":[' + b",".join([record] * many) + b"]}"
    began = time.process_time()
    with pytest.raises(RequestError):
        read_rows(body, "mlflow", LIMITS)
    # Of which simdjson takes most.
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("v1", {"inputs": [[1]]}), ("v1", {"instances": [[1]], "signature_name": "x"}),
        ("v1", {"instances": [[1], [1, 2]]}), ("v1", {"instances": [["a"]]}),
        ("v1", {"instances": []}), ("v1", {"instances": [[None]]}), ("v1", [[1]]),
        ("mlflow", {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}),
        ("mlflow", {"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}),
        ("mlflow", {"dataframe_split": {"columns": [], "data": [[1]]}}),
        ("mlflow", {"dataframe_split": [[1]]}),
        ("mlflow", {"dataframe_records": []}), ("mlflow", {"dataframe_records": [{}]}),
        ("mlflow", {"dataframe_records": {"a": [1]}}), ("mlflow", {"dataframe_records": [[1]]}),
        ("mlflow", {"dataframe_records": [{"a": 1}, {"b": 1}]}),
        ("mlflow", {"dataframe_records": [{"a": "1"}]}),
        ("mlflow", {"dataframe_records": [{"a": None}]}),
        ("mlflow", {"dataframe_records": [{"a": True}]}),
        ("mlflow", {"dataframe_records": [{"a": [1]}]}),
        ("v1", {"dataframe_records": [{"a": 1}]}),
    ],
)  # fmt: skip
def test_rows_that_nobody_can_read_for_sure_are_refused(form: Any, content: Any) -> None:
    with pytest.raises(RequestError):
        read_rows(json.dumps(content).encode(), form, LIMITS)
