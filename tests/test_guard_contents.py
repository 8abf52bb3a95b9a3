"""Pictures and text in requests: what goes on is one plain form of what was looked at."""

from __future__ import annotations

import base64
import io
import struct
import unicodedata
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferences import asked, held, named, only, refused
from PIL import Image

from withstand.guard.rules import Images, Text
from withstand.guard.rules._scripts import HIDDEN, lookalikes
from withstand.guard.wire import RequestError


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
    Images(pixels=48)(held(*[picture()] * 8))
    refused(Images(pixels=48), held(*[picture()] * 9), "over 384 pixels in all", 413)


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
