"""What a request must be before anything looks at it, and how answers tell less."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import unicodedata
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from withstand._errors import ConfigError
from withstand.guard import Answer, Rule
from withstand.guard.answers import coarsened, read_answer
from withstand.guard.answers._coarsen import less
from withstand.guard.rules import Images, Input, Range, Schema, Text
from withstand.guard.rules._scripts import HIDDEN, lookalikes
from withstand.guard.wire import DATATYPES, Inference, Limits, Named, RequestError, read_rows


def asked(*inputs: Named, **more: Any) -> Inference:
    return Inference(**{"id": "", "inputs": inputs, "parameters": {}, **more})


def named(values: Any, name: str = "x", datatype: str = "FP32", **parameters: Any) -> Named:
    kind = object if datatype == "BYTES" else DATATYPES[datatype]
    return Named(
        name=name, datatype=datatype, values=np.asarray(values, kind), parameters=parameters
    )


def held(*parts: bytes) -> Inference:
    return asked(named(list(parts), datatype="BYTES"))


def only(found: Inference) -> Any:
    return found.inputs[0].values


def refused(rule: Any, request: Inference, match: str, status: int = 400) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        rule(request)
    assert caught.value.status == status


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
    refused(Range(limits={"x": (0, 0.5)}), request, "'x' has values outside")
    refused(Range(limits={"x": (0.5, 1)}), request, "'x' has values outside")
    refused(Range(limits={"n": (1, 9)}), asked(named([0, 5], "n", "INT8")), "outside")
    refused(Range(limits={"n": (0, 4)}), asked(named([0, 5], "n", "INT8")), "outside")
    refused(Range(limits={"": (0, 1)}), request, "'y' has values outside")
    clipped = Range(limits={"x": (0.25, 0.5)}, outside="clip")(request)
    assert [one.values.tolist() for one in clipped.inputs] == [[[0.25, 0.5]], [[7.0]]]
    assert request.inputs[0].values.tolist() == [[0.0, 1.0]]


def test_each_feature_has_its_own_range() -> None:
    rule = Range(limits={"x": ((0.0, -5.0), (1.0, 5.0))})
    request = asked(named([[1, 5], [0, -5]]))
    assert rule(request) is request
    refused(rule, asked(named([[1, 5], [-5, 0]])), "outside")
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


def picture(mode: str = "RGB", size: tuple[int, int] = (8, 6), **how: Any) -> bytes:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (size[1], size[0], 4), np.uint8)
    out = io.BytesIO()
    how = {"format": "PNG", **how}
    Image.fromarray(values).convert(mode).save(out, **how)
    return out.getvalue()


def pixels(content: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def canonical(content: bytes, **how: Any) -> bytes:
    found: bytes = only(Images(**how)(held(content)))[0]
    return found


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_images_become_plain_pictures_and_stay_so(mode: str) -> None:
    found = canonical(picture(mode))
    values = pixels(found)
    assert values.dtype == np.uint8
    assert values.shape == ((6, 8) if mode in ("1", "L", "LA") else (6, 8, 3))
    request = held(found)
    assert Images()(request) is request


def test_pixels_of_a_plain_picture_stay_as_they_are() -> None:
    content = picture("RGB", format="BMP")
    with Image.open(io.BytesIO(content)) as image:
        wanted = np.asarray(image)
    assert (pixels(canonical(content, formats=("BMP",))) == wanted).all()


def test_cmyk_becomes_rgb() -> None:
    assert pixels(canonical(picture("CMYK", format="JPEG"))).shape == (6, 8, 3)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    deep = np.arange(0, 65_536, 2048, dtype=np.uint16).reshape(4, 8)
    out = io.BytesIO()
    Image.fromarray(deep).save(out, "PNG")
    assert (pixels(canonical(out.getvalue())) == deep >> 8).all()


def test_what_is_transparent_is_seen_before_its_background() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    out = io.BytesIO()
    image.save(out, "PNG")
    found = pixels(canonical(out.getvalue(), background=200))
    assert found.tolist() == [[[200] * 3, [10, 20, 30]]]


def test_an_image_is_turned_as_its_exif_says() -> None:
    image = Image.new("L", (3, 2))
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    image.save(out, "PNG", exif=exif)
    found = pixels(canonical(out.getvalue()))
    assert found.shape == (3, 2)
    assert np.argwhere(found).tolist() == [[0, 1]]


def test_nothing_but_pixels_goes_on() -> None:
    content = picture(
        "RGB", format="JPEG", icc_profile=b"profile-secret", comment=b"comment-secret", quality=90
    )
    content += b"PK\x03\x04 zip-secret"
    found = canonical(content)
    assert b"secret" in content
    assert b"secret" not in found
    kinds = []
    place = 8
    while place < len(found):
        (size,), kind = struct.unpack(">I", found[place : place + 4]), found[place + 4 : place + 8]
        kinds.append(kind)
        place += 12 + size
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}


def test_pixels_are_counted_before_anything_is_decoded() -> None:
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(10)))):
        bomb += struct.pack(">I", len(data)) + kind + data
        bomb += struct.pack(">I", zlib.crc32(kind + data))
    refused(Images(), held(bomb), "over 4000000 pixels", 413)
    refused(Images(pixels=47), held(picture()), "over 47 pixels", 413)
    Images(pixels=48)(held(picture()))


def moving() -> bytes:
    out = io.BytesIO()
    frames = [Image.new("L", (4, 4), grey) for grey in (0, 255)]
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:])
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "must be images"),
        (b"no image", "must be images"),
        (picture(format="GIF"), "must be images"),
        (picture()[:-40], "must be images"),
        (picture(format="JPEG")[:-150], "must be images"),
        # Of this, one reader shows the first frame and another none at all.
        (moving(), "moving image"),
    ],
)
def test_what_readers_differ_about_is_refused(content: bytes, match: str) -> None:
    refused(Images(), held(content), match)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_image_is_refused_or_plain(data: st.DataObject) -> None:
    content = bytearray(picture("RGB", format=data.draw(st.sampled_from(["PNG", "JPEG"]))))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    rule = Images(pixels=10_000)
    with suppress(RequestError):
        once = rule(held(bytes(content)))
        assert rule(once) is once


def test_images_may_be_texts_in_base64() -> None:
    rule = Images(encoded=True)
    once = rule(held(base64.b64encode(picture("RGBA"))))
    assert pixels(base64.b64decode(only(once)[0])).shape == (6, 8, 3)
    assert rule(once) is once
    refused(rule, held(base64.b64encode(picture())[:-1] + b"\n"), "must be base64")


def text(words: str | bytes, **how: Any) -> str:
    part = words if isinstance(words, bytes) else words.encode()
    found: bytes = only(Text(**how)(held(part)))[0]
    return found.decode()


@pytest.mark.parametrize(
    ("words", "plain"),
    [
        ("plain ASCII\n", "plain ASCII\n"),
        ("\ufb01le \u2460 \uff46\uff55\uff4c\uff4c", "file 1 full"),
        ("e\u0301", "é"),
        ("pass\u200bword", "password"),
        ("\ufeffone\u00adtwo\u2060", "onetwo"),
        ("abc\u202egnp.exe", "abcgnp.exe"),
        ("a\U000e0041\ufe0f", "a"),
        ("слово λόγος ქართული 漢字かな", "слово λόγος ქართული 漢字かな"),
        ("5 μm and Δt", "5 μm and Δt"),
    ],
)
def test_text_has_one_form(words: str, plain: str) -> None:
    assert text(words) == plain
    assert text(plain) == plain


@pytest.mark.parametrize(
    "part",
    [
        b"\xc0\xaf",  # An overlong slash: lax decoders read it, strict ones do not.
        b"\xed\xa0\x80",
        b"\xff",
        b"caf\xe9",
        b"\xf4\x90\x80\x80",
    ],
)
def test_bytes_that_decoders_differ_about_are_refused(part: bytes) -> None:
    refused(Text(), held(part), "must be UTF-8")


@pytest.mark.parametrize("words", ["a\x00b", "a\x08b", "\x1b[2J", "a\x7f", "a\x85b"])
def test_control_characters_are_refused(words: str) -> None:
    refused(Text(), held(words.encode()), "control characters")


def test_letters_that_look_like_others_are_refused_or_replaced() -> None:
    spoofed = "p\u0430ypal"
    assert spoofed != "paypal"
    refused(Text(), held(spoofed.encode()), "mixes scripts")
    assert text(spoofed, similar="replace") == "paypal"
    assert text(spoofed, similar="keep") == spoofed
    assert text("e\u200b\u0301", similar="keep") == "\u00e9"
    refused(Text(hidden="refuse"), held("pass\u200bword".encode()), "hidden")
    # A whole word of another script cannot be told from a word that is meant.
    assert text("\u0440\u0430\u0440\u0430\u0443") == "\u0440\u0430\u0440\u0430\u0443"


def test_length_counts_before_and_after() -> None:
    refused(Text(characters=10), held(b"x" * 11), "over 10 characters", 413)
    refused(Text(characters=10), held("\ufdfa".encode()), "over 10 characters", 413)
    refused(Text(characters=10), held(b"x" * 1000), "over 10 characters", 413)
    assert text("x" * 10, characters=10) == "x" * 10


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=300)
def test_normal_text_stays_as_it_is(words: str) -> None:
    rule = Text(similar="replace")
    try:
        once = rule(held(words.encode()))
    except RequestError:
        return
    assert rule(once) is once
    found = only(once)[0].decode()
    assert unicodedata.is_normalized("NFKC", found)
    assert not HIDDEN.search(found)
    assert lookalikes(found) == found


def test_hidden_are_all_format_characters_but_those_that_are_seen() -> None:
    seen = ("ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN")
    for code in (*range(0x20000), *range(0xE0000, 0xE0200)):
        letter = chr(code)
        if unicodedata.category(letter) == "Cf" and not HIDDEN.match(letter):
            assert unicodedata.name(letter).startswith(seen)
    assert not HIDDEN.search("".join(map(chr, range(0x20, 0x7F))) + "é λ я 漢 \u0301")


def test_other_inputs_are_left_alone() -> None:
    request = asked(
        named([b"\xff"], "raw", "BYTES"), named(["ﬁ".encode()], "t", "BYTES"), named([1.0])
    )
    found = Text(name="t")(request)
    assert found.inputs[0] is request.inputs[0]
    assert found.inputs[2] is request.inputs[2]
    assert found.inputs[1].values.tolist() == [b"fi"]


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
