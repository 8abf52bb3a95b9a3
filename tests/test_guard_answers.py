"""Answers that tell less and name the same class, in the form in which the model gave them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from withstand.guard import Answer
from withstand.guard.answers import coarsened, read_answer
from withstand.guard.answers._coarsen import less


def v2(*outputs: dict[str, Any], binary: tuple[bytes, ...] = (), **more: Any) -> Answer:
    head = orjson.dumps({"model_name": "m", "id": "7", "outputs": list(outputs), **more})
    if not binary:
        return Answer(200, [(b"content-type", b"application/json"), (b"x-a", b"b")], head)
    told = [(b"inference-header-content-length", str(len(head)).encode()), (b"x-a", b"b")]
    return Answer(200, told, b"".join((head, *binary)))


def output(values: Any, name: str = "p", datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    array = np.asarray(values)
    told = {"name": name, "datatype": datatype, "shape": list(array.shape), **more}
    return told if "parameters" in more else {**told, "data": array.ravel().tolist()}


def coarse(answer: Answer, digits: int = 1, top: int = 0, form: Any = "v2") -> Any:
    found = coarsened(read_answer(answer, form), digits, top=top)
    assert found.status == 200
    return found, read_answer(found, form)


def test_a_coarse_answer_keeps_all_names_and_what_is_no_score() -> None:
    label = output([3, 1], "label", "INT64")
    words = output(["three", "one"], "word", "BYTES")
    found, read = coarse(v2(label, output([[0.26, 0.74], [0.91, 0.09]]), words, model_version="2"))
    told = json.loads(found.body)
    assert (told["id"], told["model_version"]) == ("7", "2")
    assert told["outputs"][0] == label
    assert told["outputs"][2] == words
    assert told["outputs"][1]["data"] == [0.3, 0.7, 0.9, 0.1]
    assert (b"x-a", b"b") in found.headers
    assert [one.name for one in read.outputs] == ["label", "p", "word"]


def test_a_binary_answer_stays_binary() -> None:
    scores, labels = np.float32([[0.26, 0.74]]), np.int64([1])
    text = b"0.7412345:1:dog"
    raw = len(text).to_bytes(4, "little") + text
    sizes = [{"binary_data_size": n} for n in (scores.nbytes, labels.nbytes, len(raw))]
    found, read = coarse(
        v2(
            output(scores, parameters=sizes[0]),
            output(labels, "label", "INT64", parameters=sizes[1]),
            output([""], "class", "BYTES", parameters=sizes[2]),
            binary=(scores.tobytes(), labels.tobytes(), raw),
        )
    )
    assert read.outputs[0].values.tolist() == np.float32([[0.3, 0.7]]).tolist()
    assert read.outputs[1].values.tolist() == [1]
    assert read.outputs[2].part == b"\x09\0\0\0" + b"0.7:1:dog"
    assert dict(found.headers)[b"content-type"] == b"application/octet-stream"


def test_classes_with_scores_keep_their_names() -> None:
    given_ = output([["0.9345:5:five", "0.0101:3:three"]], "c", "BYTES")
    found, _ = coarse(v2(given_))
    assert json.loads(found.body)["outputs"][0]["data"] == ["0.9:5:five", "0.0:3:three"]


def test_an_answer_without_scores_is_left_as_it_is() -> None:
    answer = v2(output([3, 1], "label", "INT64"), output(["a:b"], "word", "BYTES"))
    assert coarse(answer)[0] is answer
    rows = Answer(200, [], b'{"predictions": [1, 2]}')
    assert coarse(rows, form="v1")[0] is rows


def test_rows_tell_less_whatever_their_form() -> None:
    told = {"predictions": [[0.26, 0.74]], "model": "m"}
    answer = Answer(200, [], orjson.dumps(told))
    assert json.loads(coarse(answer, form="v1")[0].body) == {
        "predictions": [[0.3, 0.7]], "model": "m",
    }  # fmt: skip
    told = {"predictions": [{"label": 1, "p": [0.264, 0.736], "word": "dog", "margin": 0.4721}]}
    found = json.loads(coarse(Answer(200, [], orjson.dumps(told)), form="mlflow")[0].body)
    assert found == {"predictions": [{"label": 1, "p": [0.3, 0.7], "word": "dog", "margin": 0.5}]}
    alone = json.loads(coarse(Answer(200, [], orjson.dumps(told)), 0, form="mlflow")[0].body)
    assert alone["predictions"][0]["p"] == [0, 1]


def test_a_single_score_is_rounded() -> None:
    found, _ = coarse(v2(output([[0.4721], [0.9]])))
    assert json.loads(found.body)["outputs"][0]["data"] == [0.5, 0.9]


@given(
    rows=st.lists(
        st.lists(st.integers(-1000, 1000), min_size=5, max_size=5), min_size=1, max_size=4
    ),
    scale=st.sampled_from([1.0, 1e-3, 1e-6, 1e3, 1e30]),
    shares=st.booleans(),
    digits=st.integers(0, 4),
    top=st.integers(0, 6),
    kind=st.sampled_from([np.float32, np.float64]),
)
@settings(max_examples=200)
def test_the_coarse_answer_names_the_same_class(
    rows: list[list[int]], scale: float, shares: bool, digits: int, top: int, kind: Any
) -> None:
    values = np.asarray(rows, float) * scale
    if shares:
        values = np.abs(values) / np.maximum(np.abs(values).sum(1, keepdims=True), 1e-300)
    values = values.astype(kind)
    found = less(values, digits, top)
    assert found.dtype == kind
    assert np.isfinite(found).all()
    assert (found.argmax(1) == values.argmax(1)).all()
    if shares:
        assert (found >= 0).all()
        assert (found <= 1 + 1e-6).all()
    # Whoever takes the last of equal ones names the same class, too.
    if digits and np.abs(values).max() < 1e4:
        last = found.shape[1] - 1 - found[:, ::-1].argmax(1)
        assert (last == values.argmax(1)).all()
    if 0 < top < 5 and shares:
        assert ((found > 0).sum(1) <= top).all()


def test_a_class_that_leads_by_little_still_leads() -> None:
    assert less(np.array([[0.44, 0.41, 0.15]]), 1).tolist()[0][:2] == [0.4, 0.3]
    assert less(np.array([[0.41, 0.44, 0.15]]), 1).tolist()[0][:2] == [0.3, 0.4]
    many = np.full((1, 1000), 0.001)
    many[0, 700] = 0.0011
    assert np.flatnonzero(less(many, 1)).tolist() == [700]
