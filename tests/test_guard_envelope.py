"""What is read only once: a request that is equal to an earlier one but for its numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import pytest
import simdjson
from hypothesis import given, settings
from hypothesis import strategies as st

from withstand.guard.wire import Limits, RequestError, _json, _v2, read_v2, write_v2
from withstand.guard.wire._envelope import Envelopes

LIMITS = Limits(elements=50)
ONE = {"name": "x", "datatype": "FP32", "shape": [1, 2]}


def body(data: Any = (0.5, 2), order: str = "in", **more: Any) -> bytes:
    tensor = {**ONE, "data": list(data)} if order == "in" else {"data": list(data), **ONE}
    return json.dumps({**more, "inputs": [tensor]}).encode()


BASES = [
    body(),
    body(order="out"),
    body(outputs=[{"name": "p"}], parameters={"data": "a"}),
    body().replace(b"[1, 2]", b"[2]").replace(b" ", b""),
    body((1,), order="out").replace(b"[1, 2]", b"[1]"),
    body().replace(b"FP32", b"INT8").replace(b"0.5", b"-3"),
    body().replace(b"[0.5, 2]", b"[[0.5, 2]]"),
    body().replace(b'"x"', b'"\\"data\\":["'),
    b'{"inputs":[{"data":[1],"name":"x","datatype":"FP32","shape":[1]}]}',
]


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    _v2._envelopes = Envelopes()
    yield
    _v2._envelopes = Envelopes()


def outcome(content: bytes) -> Any:
    try:
        asked = read_v2(content, None, LIMITS)
    except RequestError as error:
        return error.status, error.reason, str(error)
    spans = [named.span for named in asked.inputs]
    return write_v2(asked, raw=True), spans, asked.inputs[0].values.dtype


@cache
def known() -> dict[Any, Any]:
    """What is kept of all of them."""
    _v2._envelopes = Envelopes()
    for base in BASES:
        outcome(base)
    return dict(_v2._envelopes._known)


@settings(max_examples=150, deadline=None)
@given(
    base=st.sampled_from(BASES),
    place=st.integers(0, 120),
    size=st.integers(0, 4),
    put=st.one_of(
        st.sampled_from([b"[", b"]", b"]]", b'"', b",", b"1e39", b"7", b"NaN", b"[]", b"null", b"",
                         b"1],\"a\":[2", b"],\"data\":[", b"\\", b"}", b"{}", b"300", b"1e999"]),
        st.binary(max_size=4),
    ),
)  # fmt: skip
def test_whatever_changes_it_is_read_as_if_nothing_were_known(
    base: bytes, place: int, size: int, put: bytes
) -> None:
    content = base[:place] + put + base[place + size :]
    _v2._envelopes = Envelopes()
    expected = outcome(content)
    kept = known()
    _v2._envelopes = Envelopes()
    _v2._envelopes._known.update(kept)
    assert outcome(content) == expected


def raw_body(values: Any = (0.5, 2), datatype: str = "FP32", **more: Any) -> tuple[bytes, bytes]:
    """The text and the numbers of a request."""
    kind = {"FP32": "<f4", "INT8": "<i1", "FP64": "<f8"}[datatype]
    numbers = np.array(values, kind).tobytes()
    tensor = {**ONE, "datatype": datatype, "parameters": {"binary_data_size": len(numbers)}}
    return json.dumps({**more, "inputs": [tensor]}).encode(), numbers


RAW = [raw_body(), raw_body((-3, 4), "INT8"), raw_body((0.25, 1e300), "FP64", outputs=[])]


def raw_outcome(text: bytes, numbers: bytes) -> Any:
    try:
        asked = read_v2(text + numbers, str(len(text)), LIMITS)
    except RequestError as error:
        return error.status, error.reason, str(error)
    return write_v2(asked, raw=True), [named.span for named in asked.inputs], asked.binary


@settings(max_examples=80, deadline=None)
@given(
    base=st.sampled_from(RAW),
    place=st.integers(0, 150),
    size=st.integers(0, 4),
    put=st.one_of(st.sampled_from([b"", b"7", b"FP64", b"INT8", b"[2]", b"}", b'"']),
                  st.binary(max_size=4)),
    numbers=st.one_of(
        st.binary(max_size=18),
        st.sampled_from([np.array([np.nan, 1], "<f4").tobytes(), np.array([1, 2], "<f4").tobytes(),
                         np.array([1, np.inf], "<f8").tobytes()]),
    ),
    touched=st.booleans(),
)  # fmt: skip
def test_raw_numbers_behind_a_text_are_read_as_if_nothing_were_known(
    base: tuple[bytes, bytes], place: int, size: int, put: bytes, numbers: bytes, touched: bool
) -> None:
    text = base[0][:place] + put + base[0][place + size :] if touched else base[0]
    _v2._envelopes = Envelopes()
    expected = raw_outcome(text, numbers)
    _v2._envelopes = Envelopes()
    for one in RAW:
        raw_outcome(*one)
    assert len(_v2._envelopes._known) == len(RAW)
    assert raw_outcome(text, numbers) == expected


def test_a_known_text_before_raw_numbers_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, numbers in (*RAW, raw_body(id="a")):
        read_v2(text + numbers, str(len(text)), LIMITS)
    monkeypatch.setattr(_v2, "members", None)
    text, _ = raw_body()
    asked = read_v2(text + raw_body((3, 4))[1], str(len(text)), LIMITS)
    np.testing.assert_array_equal(asked.inputs[0].values, [[3, 4]])
    assert asked.inputs[0].ends == (3, 4)
    # A text with an id is read each time, and so is one with its numbers in it.
    for text, numbers in (raw_body(id="a"), (body(), b"")):
        with pytest.raises(TypeError):
            read_v2(text + numbers, str(len(text)), LIMITS)


@pytest.mark.parametrize("shape", [b"[7]", b"[1, 1]", b"[0]"])
def test_no_other_list_is_taken_for_the_numbers(shape: bytes) -> None:
    content = BASES[4]
    assert content.endswith(b'"shape": [1]}]}')
    changed = content.replace(b'"shape": [1]', b'"shape": ' + shape)
    expected = outcome(changed)
    _v2._envelopes = Envelopes()
    outcome(content)
    assert outcome(changed) == expected


def test_a_known_request_is_not_read_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_v2(body(), None, LIMITS)
    monkeypatch.setattr(_v2, "members", None)
    second = read_v2(body((3, 4)), None, LIMITS)
    np.testing.assert_array_equal(second.inputs[0].values, [[3, 4]])
    assert (second.inputs[0].name, second.inputs[0].ends) == (first.inputs[0].name, (3, 4))
    # Not within other limits, and not with anything else that differs.
    for content, limits in ((body(), Limits(elements=1)), (body(id="a"), LIMITS)):
        with pytest.raises(TypeError):
            read_v2(content, None, limits)


def test_a_parser_is_used_again_and_what_it_has_read_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[simdjson.Parser] = []

    def parser() -> simdjson.Parser:
        made.append(real())
        return made[-1]

    real = simdjson.Parser
    monkeypatch.setattr(simdjson, "Parser", parser)
    monkeypatch.setattr(_json, "_spare", [])
    texts = [body((i, i + 0.5)).replace(b"FP32", b"FP64") for i in range(6)]
    texts.insert(3, body((1, "a")).replace(b"FP32", b"FP64"))
    found = []
    for text in texts:
        with suppress(RequestError):
            found.append(read_v2(text, None, LIMITS).inputs[0].values)
    assert [list(values[0]) for values in found] == [[i, i + 0.5] for i in range(6)]
    # The first and the broken one are read in full, and what failed takes its parser with it.
    assert len(made) == 4
    assert len(_json._spare) == 1
    long = texts[0].replace(b"[0, 0.5]", b"[0, 0.5" + b" " * 70_000 + b"]")
    assert read_v2(long, None, LIMITS).inputs[0].values.tolist() == [[0, 0.5]]
    # Its memory is not kept.
    assert (len(made), _json._spare) == (4, [])


def test_what_is_known_does_not_grow() -> None:
    for number in range(600):
        read_v2(body(parameters={"a": number}), None, LIMITS)
        read_v2(body(id=f"{number}"), None, LIMITS)
    assert 0 < len(_v2._envelopes._known) <= 256
    read_v2(body(parameters={"b": "x" * 3000}), None, LIMITS)
    assert all(b"x" * 3000 not in before for before, _ in _v2._envelopes._known)
