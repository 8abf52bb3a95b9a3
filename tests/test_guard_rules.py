"""What the inputs of a request must be before anything looks at them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferences import asked, named, only, refused

from withstand._errors import ConfigError
from withstand.guard import Rule
from withstand.guard.rules import Images, Input, Range, Schema, Text
from withstand.guard.wire import DATATYPES, Inference, Limits, RequestError, read_rows

X = Input(name="x", datatype="FP32", shape=(-1, 2, 3))
SCHEMA = Schema(inputs=(X,), batch=4)


def test_what_fits_the_schema_is_the_same_object() -> None:
    request = asked(named(np.zeros((4, 2, 3))))
    assert Rule(name="schema", apply=SCHEMA).apply(request) is request


@pytest.mark.parametrize(
    ("request_", "match", "status"),
    [
        (asked(named(np.zeros((1, 2, 3)), "y")), "no input 'y'", 400),
        (asked(named(np.zeros((1, 2, 3))), named([[1]], "y")), "takes 1 inputs: x", 400),
        (asked(named(np.zeros((1, 2, 3)), datatype="FP64")), "must be FP32", 400),
        (asked(named(np.zeros((1, 3, 2)))), "must have shape", 400),
        (asked(named(np.zeros((2, 3)))), "must have shape", 400),
        (asked(named(np.zeros((5, 2, 3)))), "more than 4 rows", 413),
        (asked(named(np.zeros((1, 2, 3)), content_type="pd")), "a parameter", 400),
        (asked(named(np.zeros((1, 2, 3))), parameters={"content_type": "pd"}), "request has", 400),
    ],
)
def test_what_does_not_fit_is_refused(request_: Inference, match: str, status: int) -> None:
    refused(SCHEMA, request_, match, status)


def test_a_parameter_is_taken_with_its_value_only() -> None:
    told = Input(name="x", datatype="FP32", shape=(-1,), parameters={"content_type": "np"})
    schema = Schema(inputs=(told,))
    schema(asked(named([1], content_type="np")))
    refused(schema, asked(named([1], content_type="pd")), "a parameter")
    # What is equal in Python is not the same to a server.
    flag = Schema(inputs=(Input(name="x", datatype="FP32", shape=(-1,), parameters={"k": 1}),))
    refused(flag, asked(named([1], k=True)), "a parameter")


def test_inputs_have_as_many_rows_as_each_other() -> None:
    schema = Schema(inputs=(X, Input(name="n", datatype="INT64", shape=(-1,))))
    schema(asked(named(np.zeros((2, 2, 3))), named([1, 2], "n", "INT64")))
    unequal = asked(named(np.zeros((2, 2, 3))), named([1, 2, 3], "n", "INT64"))
    refused(schema, unequal, "same number of rows")
    twice = asked(named(np.zeros((2, 2, 3))), named(np.zeros((2, 2, 3)), "y"))
    refused(schema, twice, "no input 'y'")


def test_rows_have_a_name_of_their_own() -> None:
    body = b'{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}'
    request = read_rows(body, "mlflow", Limits())
    shape = Input(name="x", datatype="FP32", shape=(-1, 2))
    assert Schema(inputs=(shape,), rows=True)(request) is request
    refused(Schema(inputs=(shape,)), request, "no input")
    wide = Input(name="x", datatype="FP32", shape=(-1, 3))
    refused(Schema(inputs=(wide,), rows=True), request, "must have shape")


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    free=st.lists(st.booleans(), min_size=4, max_size=4),
    other=st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_what_passes_satisfies_the_schema(
    shape: list[int], free: list[bool], other: list[int]
) -> None:
    wanted = tuple(-1 if any_ else size for any_, size in zip(free, shape, strict=False))
    schema = Schema(inputs=(Input(name="x", datatype="FP32", shape=wanted),), batch=3)
    request = asked(named(np.zeros(other)))
    fits = (
        len(other) == len(wanted)
        and all(a in (-1, b) for a, b in zip(wanted, other, strict=False))
        and (wanted[0] != -1 or other[0] <= 3)
    )
    if fits:
        assert schema(request) is request
    else:
        with pytest.raises(RequestError):
            schema(request)


def test_metadata_give_a_schema() -> None:
    told = {"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": ["-1", 2, 3]}]}
    assert Schema.of(told, batch=4) == SCHEMA
    for empty in ({}, {"inputs": []}, {"inputs": [{"name": "x"}]}, {"inputs": 3}):
        with pytest.raises(ConfigError, match="name no inputs"):
            Schema.of(empty)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Input(name="x", datatype="BF16", shape=(-1,)),
        lambda: Input(name="x", datatype="FP32", shape=(0,)),
        lambda: Input(name="x", datatype="FP32", shape=()),
        lambda: Schema(inputs=()),
        lambda: Schema(inputs=(X, X)),
        lambda: Schema(inputs=(X,), batch=0),
        lambda: Range(limits={"x": (1, 0)}),
        lambda: Images(formats=("PSD",)),
        lambda: Images(pixels=0),
        lambda: Text(characters=0),
    ],
)
def test_rules_that_make_no_sense_are_told(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def test_values_outside_their_range_are_refused_or_clipped() -> None:
    request = asked(named([[0.0, 1.0]]), named([[7.0]], "y"))
    inside = Range(limits={"x": (0, 1)})
    assert inside(request) is request
    refused(Range(limits={"x": (0, 0.5)}), request, "'x' has values outside the range 0 to 0.5")
    refused(Range(limits={"x": (0.5, 1)}), request, "'x' has values outside")
    refused(Range(limits={"n": (1, 9)}), asked(named([0, 5], "n", "INT8")), "outside")
    refused(Range(limits={"n": (0, 4)}), asked(named([0, 5], "n", "INT8")), "the range 0 to 4")
    refused(Range(limits={"": (0, 1)}), request, "'y' has values outside")
    clipped = Range(limits={"x": (0.25, 0.5)}, outside="clip")(request)
    assert [one.values.tolist() for one in clipped.inputs] == [[[0.25, 0.5]], [[7.0]]]
    assert request.inputs[0].values.tolist() == [[0.0, 1.0]]


def test_each_feature_has_its_own_range() -> None:
    rule = Range(limits={"x": ((0.0, -5.0), (1.0, 5.0))})
    request = asked(named([[1, 5], [0, -5]]))
    assert rule(request) is request
    refused(rule, asked(named([[1, 5], [-5, 0]])), "outside the range of its features")
    refused(rule, asked(named([[1.0, 1.0, 1.0]])), "2 features")


@given(
    datatype=st.sampled_from(sorted(set(DATATYPES) - {"BOOL"})),
    ends=st.tuples(*[st.floats(-1e30, 1e30) | st.integers(-300, 300).map(lambda n: n / 7)] * 2).map(
        sorted
    ),
    seed=st.integers(0, 10**6),
)
def test_what_is_clipped_once_is_inside(datatype: str, ends: list[float], seed: int) -> None:
    kind = DATATYPES[datatype]
    drawn = np.random.default_rng(seed).integers(0, 256, 4 * kind.itemsize, np.uint8)
    values = drawn.view(kind)
    values = values[np.isfinite(values)] if kind.kind == "f" else values
    rule = Range(limits={"": (ends[0], ends[1])}, outside="clip")
    request = asked(named(values.copy(), datatype=datatype))
    if kind.kind != "f" and max(math.ceil(ends[0]), np.iinfo(kind).min) > min(
        math.floor(ends[1]), np.iinfo(kind).max
    ):
        refused(rule, request, "no whole number")
        return
    once = rule(request)
    assert rule(once) is once
    assert only(once).dtype == kind
    if kind.kind != "f" and np.iinfo(kind).min <= ends[0] <= ends[1] <= np.iinfo(kind).max:
        assert all(ends[0] <= int(value) <= ends[1] for value in only(once))
