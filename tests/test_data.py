"""Loaders: what is read is what was written, and every mistake is one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import wavfile

from withstand import WithstandError, data
from withstand._errors import DataError
from withstand.config import DataConfig
from withstand.data import (
    Dataset,
    from_arrays,
    load,
    load_audio,
    load_csv,
    load_images,
    load_npz,
    load_parquet,
    load_sklearn,
    read_table,
)

X = np.arange(24, dtype=np.float32).reshape(4, 6)
Y = np.array([0, 1, 2, 1])


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def csv(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path


def refused(words: str, call: Any, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(DataError, match=words) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_exported_names_are_sorted_and_exist() -> None:
    assert sorted(data.__all__, key=lambda n: (n[0].islower(), n)) == data.__all__
    assert all(hasattr(data, name) for name in data.__all__)


def test_npz_is_read_as_written(tmp_path: Path) -> None:
    path = npz(tmp_path, a=X, b=Y, who=np.array(["u", "v", "u", "w"]))
    got = load_npz(path, "a", "b", scale=2, limit=3, group="who")
    assert got.x.dtype == np.float32
    assert np.array_equal(got.x, X[:3] / 2)
    assert got.y.tolist() == [0, 1, 2]
    assert got.groups is not None
    assert got.groups.tolist() == ["u", "v", "u"]
    assert (got.provenance.n, got.provenance.shape) == (3, (6,))
    assert got.provenance.name == "data"


def test_npz_mistakes(tmp_path: Path) -> None:
    path = npz(tmp_path, x_test=X, y=np.array(["a", 1, None, 2], dtype=object))
    refused("no key 'x_tst', did you mean 'x_test'", load_npz, path, "x_tst")
    refused("Python objects, which are not opened", load_npz, path, "x_test")
    refused("no key 'z'; it has x_test, y", load_npz, path, "x_test", "z")
    refused("data.npzz not found, did you mean 'data.npz'", load_npz, tmp_path / "data.npzz")
    refused("is a folder; give a file", load_npz, tmp_path)
    np.save(tmp_path / "bare.npy", X)
    refused("one bare array", load_npz, tmp_path / "bare.npy")
    (tmp_path / "text.npz").write_text("hello")
    refused("not an .npz file", load_npz, tmp_path / "text.npz")
    whole = npz(tmp_path, x=X, y=Y).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    refused("not an .npz file", load_npz, tmp_path / "cut.npz")


def test_a_damaged_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).random((50, 50)), y=np.zeros(50))
    raw = bytearray(path.read_bytes())
    raw[5000:5100] = bytes(100)
    path.write_bytes(raw)
    refused("key 'x' is damaged", load_npz, path)


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((2, 28, 28), "auto", (1, 28, 28)),
        ((2, 20, 28), "auto", (20, 28)),
        ((2, 20, 28), "hwc", (1, 20, 28)),
        ((2, 3, 8, 9), "auto", (3, 8, 9)),
        ((2, 3, 8, 3), "auto", (3, 8, 3)),
        ((2, 3, 8, 9), "chw", (3, 8, 9)),
        ((2, 8, 9, 3), "none", (8, 9, 3)),
        ((2, 28, 28), "none", (28, 28)),
    ],
)
def test_layout_without_moving(
    tmp_path: Path, shape: tuple[int, ...], layout: Any, expected: tuple[int, ...]
) -> None:
    raw = np.arange(np.prod(shape)).reshape(shape)
    got = load_npz(npz(tmp_path, x=raw, y=np.arange(2)), layout=layout)
    assert np.array_equal(got.x, raw.reshape(2, *expected))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((2, 8, 9, 3), "auto"), ((2, 8, 9, 1), "auto"), ((2, 3, 8, 3), "hwc")],
)
def test_layout_moves_channels_to_the_front(
    tmp_path: Path, shape: tuple[int, ...], layout: Any
) -> None:
    raw = np.arange(np.prod(shape)).reshape(shape)
    got = load_npz(npz(tmp_path, x=raw, y=np.arange(2)), layout=layout)
    assert np.array_equal(got.x, raw.transpose(0, 3, 1, 2))


def test_layout_mistakes(tmp_path: Path) -> None:
    path = npz(tmp_path, x=X, y=Y)
    refused("layout hwc needs x of shape", load_npz, path, layout="hwc")
    refused("layout is 'nhwc'; it is one of", load_npz, path, layout="nhwc")


@pytest.mark.parametrize("kind", ["uint8", "int16", "int64", "float16", "float64", "bool"])
def test_scale_divides_exactly(tmp_path: Path, kind: str) -> None:
    raw = np.array([[0, 1], [1, 0], [1, 1]]).astype(kind)
    got = load_npz(npz(tmp_path, x=raw, y=np.arange(3)), scale=255)
    assert np.array_equal(got.x, (raw.astype(np.float64) / 255).astype(np.float32))


@pytest.mark.parametrize(("scale", "limit"), [(0, None), (-1, None), (np.nan, None), (1, 0)])
def test_options_that_no_data_can_have(tmp_path: Path, scale: float, limit: int | None) -> None:
    path = npz(tmp_path, x=X, y=Y)
    refused("scale is|limit is 0", load_npz, path, scale=scale, limit=limit)


def test_a_data_set_shows_what_it_is_and_not_its_numbers() -> None:
    shown = repr(from_arrays(np.zeros((2, 5)), [0, 1], name="zeros", classes=["ok", "fraud"]))
    assert shown == "Dataset('zeros', n=2, shape=(5,), classes=['ok', 'fraud'])"


def test_labels_of_every_kind() -> None:
    x = np.zeros((3, 2))
    assert from_arrays(x, [0.0, 2.0, 1.0]).y.dtype == np.int64
    assert from_arrays(x, [[0], [2], [1]]).y.tolist() == [0, 2, 1]
    assert from_arrays(x, [True, False, True]).y.tolist() == [1, 0, 1]
    assert from_arrays(x, [0.5, 2.0, 1.0]).y.dtype == np.float32
    assert from_arrays(x, [0.0, 2.0, 1.0], values=True).y.dtype == np.float32
    assert from_arrays(x, [[0, 1], [1, 1], [0, 0]]).y.shape == (3, 2)
    text = from_arrays(x, ["dog", "cat", "dog"])
    assert (text.y.tolist(), text.classes) == ([1, 0, 1], ("cat", "dog"))
    assert from_arrays(x, np.array([b"dog", b"cat", b"dog"])).classes == ("cat", "dog")
    named = from_arrays(x, ["dog", "cat", "dog"], classes=["dog", "bird", "cat"])
    assert (named.y.tolist(), named.classes) == ([0, 2, 0], ("dog", "bird", "cat"))


@pytest.mark.parametrize(
    ("x", "y", "more", "words"),
    [
        (np.zeros(3), [0, 1, 2], {}, "x has shape"),
        (np.zeros((0, 2)), [], {}, "x is empty"),
        (np.zeros((3, 0)), [0, 1, 2], {}, "x is empty"),
        (np.zeros((3, 2)), [0, 1], {}, "x has 3 rows but y has 2"),
        (np.zeros((3, 2)), 1, {}, "single int64 value"),
        (np.zeros((3, 2)), np.zeros((3, 2, 2)), {}, "y has shape"),
        (np.array([["a"]]), [0], {}, "not numbers"),
        (np.array([[1.0, np.nan], [np.inf, 1]]), [0, 1], {}, "2 NaN or infinite .* in 2 of 2"),
        (np.array([[1.0, np.nan]]), [0], {"features": ["age", "pay"]}, "values of pay in 1 of 1"),
        (np.array([[1e39]]), [0], {}, "infinite float32"),
        (np.zeros((2, 2)), [0.0, np.nan], {}, "y has 1 NaN or infinite values, first in row 1"),
        (np.zeros((2, 2)), [0.5, 1e39], {}, "beyond float32"),
        (np.zeros((2, 2)), [0.0, 1e19], {}, "below 2"),
        (np.zeros((2, 2)), [0, 3], {"classes": ["a", "b"]}, "y runs from 0 to 3"),
        (np.zeros((2, 2)), [0.5, 1], {"classes": ["a", "b"]}, "fractions such as 0.5"),
        (np.zeros((2, 2)), ["dgo", "cat"], {"classes": ["cat", "dog"]}, "did you mean 'dog'"),
        (np.zeros((2, 2)), np.array(["a", None], object), {}, "y is missing in 1 of 2 rows"),
        (np.zeros((2, 2)), np.array(["a", 1], object), {}, "only text or only numbers"),
        (np.zeros((2, 2)), [["a", "b"], ["a", "b"]], {}, "y is text of shape"),
        (np.zeros((2, 2)), [1j, 0], {}, "y holds complex128"),
        (np.zeros((2, 2)), [0, 1], {"groups": ["u"]}, "groups has 1"),
        (np.zeros((2, 2)), [0, 1], {"groups": [[1], [2]]}, "groups have shape"),
        (np.zeros((2, 2)), [0, 1], {"groups": [1, np.nan]}, "group is missing in 1 of 2"),
        (np.zeros((2, 2)), [0, 1], {"features": ["age"]}, "1 feature names"),
    ],
)
def test_data_that_cannot_be_evaluated(x: Any, y: Any, more: Any, words: str) -> None:
    refused(words, from_arrays, x, y, **more)


def test_class_indices_do_not_depend_on_the_limit(tmp_path: Path) -> None:
    path = npz(tmp_path, x=X, y=np.array(["d", "c", "a", "b"]))
    got = load_npz(path, limit=2)
    assert (got.y.tolist(), got.classes) == ([3, 2], ("a", "b", "c", "d"))


def test_regression_stays_one_in_a_part_with_whole_numbers() -> None:
    got = from_arrays(X, [1.0, 2.0, 0.5, 3.0]).take([0, 1])
    assert got.y.dtype == np.float32


def test_the_digest_follows_content_only(tmp_path: Path) -> None:
    first = load_npz(npz(tmp_path, x=X, y=Y)).provenance.digest
    assert len(first) == 64
    assert from_arrays(X.astype(np.float64), Y.astype(np.int8)).provenance.digest == first
    assert from_arrays(np.asfortranarray(X), Y).provenance.digest == first
    changed = X.copy()
    changed[3, 5] = np.nextafter(changed[3, 5], np.float32(np.inf))
    others = [
        from_arrays(changed, Y),
        from_arrays(X, Y[::-1]),
        from_arrays(X.reshape(4, 2, 3), Y),
        from_arrays(X, Y, values=True),
        from_arrays(X[:3], Y[:3]),
    ]
    digests = {first, *(other.provenance.digest for other in others)}
    assert len(digests) == 6


def test_take_and_head() -> None:
    whole = from_arrays(X, Y, groups=["a", "b", "c", "d"], name="n", licence="l")
    part = whole.take(np.array([False, True, False, True]))
    assert np.array_equal(part.x, X[[1, 3]])
    assert part.groups is not None
    assert part.groups.tolist() == ["b", "d"]
    assert part.provenance == from_arrays(X[[1, 3]], Y[[1, 3]], name="n", licence="l").provenance
    assert len(whole.head(2)) == 2
    assert whole.head(9) is whole
    assert whole.take(np.array([3, -1])).y.tolist() == [1, 1]
    refused("do not fit 4 rows", whole.take, [4])
    refused("do not fit 4 rows", whole.take, [0.5])
    refused("do not fit 4 rows", whole.take, [[0]])
    refused("no rows are taken", whole.take, [])
    refused("asked for 0 rows", whole.head, 0)


def test_the_callers_arrays_are_not_changed() -> None:
    x, y = X.copy(), Y.copy()
    x.flags.writeable = y.flags.writeable = False
    assert np.array_equal(from_arrays(x, y).take([0]).x[0], X[0])


TABLE = "age,pay,who,label\n1,2.5,u,no\n3,4.5,v,yes\n5,6.5,u,no\n"


@pytest.fixture(params=["csv", "parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    path = csv(tmp_path, TABLE)
    if request.param == "csv":
        pytest.importorskip("pandas")
        return load_csv, path
    pytest.importorskip("pyarrow")
    import pandas

    pandas.read_csv(path).to_parquet(tmp_path / "table.parquet")
    return load_parquet, tmp_path / "table.parquet"


def test_tables(table: tuple[Any, Path]) -> None:
    read, path = table
    got: Dataset = read(path, "label", group="who", limit=2, scale=2)
    assert got.features == ("age", "pay")
    assert got.x.tolist() == [[0.5, 1.25], [1.5, 2.25]]
    assert (got.y.tolist(), got.classes) == ([0, 1], ("no", "yes"))
    assert got.groups is not None
    assert got.groups.tolist() == ["u", "v"]
    assert read(path, "label", ["pay"]).x.tolist() == [[2.5], [4.5], [6.5]]
    assert read(path, "pay", ["age"]).y.dtype == np.float32


def test_table_mistakes(table: tuple[Any, Path]) -> None:
    read, path = table
    refused("no column 'lable', did you mean 'label'", read, path, "lable")
    refused("feature columns who are not numeric", read, path, "label")
    refused("features name the label", read, path, "age", ["age"])
    refused("'age' is there twice", read, path, "label", ["age", "age"])
    refused("no column 'ag'", read, path, "label", ["ag"])
    refused("not found", read, path.with_name("other"), "label")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read as csv"),
        ("a,label\n", "has no rows"),
        ("label\n1\n", "no feature columns"),
        ("a,label\n1,\n2,x\n", "y is missing in 1 of 2 rows"),
        ("a,b,label\n1,,x\n2,3,x\n", "1 NaN or infinite float32 values of b in 1 of 2 rows"),
        (",a,label\n0,1,x\n", "column without a name"),
        ("a,label\n1,2,3\n4,5,6\n", "more values than its header"),
        ("a,b,label\n1,2,3\n4\n", "fewer values than its header"),
        ("a,label\n1,0\nNone,1\n<NA>,1\n", "2 NaN or infinite float32 values of a in 2 of 3"),
        ("a;label\n1;2\n", "no column 'label'"),
    ],
)
def test_csv_mistakes(tmp_path: Path, text: str, words: str) -> None:
    refused(words, load_csv, csv(tmp_path, text), "label")


def test_a_csv_column_is_what_all_of_its_values_are(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    text = "a,ok,who,zip,code,label\n1,True,007,1,NA,7\n2.5,false,7,2,DE,007\n,TRUE,8,03,x,7\n"
    path = csv(tmp_path, text)
    got = load_csv(path, "label", ["ok"], group="who")
    assert (got.x[:, 0].tolist(), got.y.tolist(), got.classes) == (
        [1, 0, 1],
        [1, 0, 1],
        ("007", "7"),
    )
    assert got.groups is not None
    assert got.groups.tolist() == ["007", "7", "8"]
    refused("feature columns zip, code are not numeric", load_csv, path, "label", ["zip", "code"])
    refused("1 NaN or infinite float32 values of a in 1 of 3 rows", load_csv, path, "ok", ["a"])
    table = read_table(path)
    assert table["code"].tolist() == ["NA", "DE", "x"]
    assert np.isnan(table["a"][2])
    # Long numbers stay what they are, and gaps are gaps however many rows come before a number.
    rows = "".join(f"{10**17 + n},NA\n" for n in range(60_000))
    table = read_table(csv(tmp_path, "id,late\n" + rows + "7,1.5\n"))
    assert table["id"].dtype == np.int64
    assert table["id"][:2].tolist() == [10**17, 10**17 + 1]
    assert np.isnan(table["late"][:-1]).all()
    assert table["late"][-1] == 1.5
    cards = csv(tmp_path, f"a,label,card\n1,0,{10**19}\n2,1,{10**19 + 1}\n")
    groups = load_csv(cards, "label", group="card").groups
    assert groups is not None
    assert groups.tolist() == [str(10**19), str(10**19 + 1)]
    long = csv(tmp_path, f"a,label\n1,{10**18}\n2,{10**18 + 1}\n")
    assert load_csv(long, "label").y.tolist() == [10**18, 10**18 + 1]
    # A line break behind a number makes no text of another column.
    assert read_table(csv(tmp_path, 'a,label\n"1\n",0\n2,1\n'))["label"].tolist() == [0, 1]


def test_a_stored_index_is_a_column_to_who_asks_for_it(tmp_path: Path) -> None:
    pandas: Any = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "y": [0, 1]}, index=[5, 6]).rename_axis("card")
    frame["day"] = pandas.to_datetime(["2026-01-31", "2025-01-31"])
    frame.to_parquet(tmp_path / "a.parquet")
    days = load_parquet(tmp_path / "a.parquet", "day", ["a"]).classes
    assert days == ("2025-01-31", "2026-01-31")
    got = load_parquet(tmp_path / "a.parquet", "y", ["a"], group="card")
    assert got.features == ("a",)
    assert got.groups is not None
    assert got.groups.tolist() == [5, 6]
    assert load_parquet(tmp_path / "a.parquet", "y", ["card"]).x.tolist() == [[5], [6]]


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    refused("cannot be read as parquet", load_parquet, csv(tmp_path, TABLE), "label")


def image(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_images(tmp_path: Path) -> None:
    red, blue = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 128
    image(tmp_path / "cat" / "1.png", red)
    image(tmp_path / "cat" / "2.png", red)
    image(tmp_path / "dog" / "1.png", blue)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    got = load_images(tmp_path, scale=255)
    assert got.x.shape == (3, 3, 2, 3)
    assert (got.y.tolist(), got.classes) == ([0, 1, 0], ("cat", "dog"))
    assert (got.x[0, 0] == 1).all()
    assert np.allclose(got.x[1, 2], 128 / 255)
    assert load_images(tmp_path, size=[4, 5]).x.shape == (3, 3, 4, 5)
    assert load_images(tmp_path, mode="L").x.shape == (3, 1, 2, 3)
    assert load_images(tmp_path, limit=2).y.tolist() == [0, 1]
    assert load_images(tmp_path, classes=["dog", "cat"]).y.tolist() == [1, 0, 1]


def test_image_mistakes(tmp_path: Path) -> None:
    refused("no folders in it", load_images, tmp_path)
    (tmp_path / "cat").mkdir()
    refused("has no .png/.jpg/.jpeg files", load_images, tmp_path)
    image(tmp_path / "cat" / "1.png", np.zeros((2, 3), np.uint8))
    assert load_images(tmp_path).x.shape == (1, 1, 2, 3)
    image(tmp_path / "cat" / "2.png", np.zeros((3, 3), np.uint8))
    refused("2.png is 3x3 but 1.png is 2x3", load_images, tmp_path)
    refused("size is 0", load_images, tmp_path, size=0)
    Image.fromarray(np.zeros((2, 3), np.uint16)).save(tmp_path / "cat" / "2.png")
    refused("more than 8 bits", load_images, tmp_path)
    (tmp_path / "cat" / "2.png").write_text("hello")
    refused("cannot be read as an image", load_images, tmp_path)
    refused("is a file; give a folder", load_images, tmp_path / "cat" / "1.png")


def test_audio(tmp_path: Path) -> None:
    for name, wave in (("no", [16384, -32768, 0]), ("yes", [0, 8192])):
        (tmp_path / name).mkdir()
        wavfile.write(tmp_path / name / "1.wav", 8000, np.array(wave, np.int16))
    got = load_audio(tmp_path, length=4)
    assert got.x.tolist() == [[0.5, -1, 0, 0], [0, 0.25, 0, 0]]
    assert (got.y.tolist(), got.classes) == ([0, 1], ("no", "yes"))
    refused("has 2 samples but 1.wav has 3; give one length", load_audio, tmp_path)
    path = npz(tmp_path, x=np.array([[128, 0], [192, 64]], np.uint8), y=[0, 1])
    assert load_audio(path, length=1).x.tolist() == [[0], [0.5]]
    wavfile.write(tmp_path / "yes" / "1.wav", 16000, np.zeros(3, np.int16))
    refused("16000 samples per second", load_audio, tmp_path)


def test_sklearn_digits() -> None:
    got = load_sklearn("digits", limit=50)
    assert got.x.shape == (50, 1, 8, 8)
    assert (got.x.min(), got.x.max()) == (0, 1)
    assert got.y[:4].tolist() == [0, 1, 2, 3]
    assert got.classes is not None
    assert len(got.classes) == 10
    assert "Alpaydin" in got.provenance.source
    assert load_sklearn("digits", scale=1, limit=50).x.max() == 16
    assert load_sklearn("iris").features is not None
    refused("no embedded data set 'digit', did you mean 'digits'", load_sklearn, "digit")


def test_the_configuration_picks_the_loader(tmp_path: Path) -> None:
    npz(tmp_path, a=X, b=Y)
    got = load(DataConfig(kind="npz", path="data.npz", x="a", y="b", scale=2, limit=3), tmp_path)
    assert np.array_equal(got.x, X[:3] / 2)
    assert got.provenance.source == "data.npz"
    assert load(DataConfig(kind="sklearn", name="digits", limit=5)).x.max() == 1
    csv(tmp_path, "a,label\n1,x\n2,y\n")
    told = load(
        DataConfig(kind="csv", path="table.csv", y="label", source="us", licence="MIT"), tmp_path
    )
    assert (told.provenance.source, told.provenance.licence) == ("us", "MIT")
    with pytest.raises(WithstandError, match="not found"):
        load(DataConfig(kind="npz", path="gone.npz"), tmp_path)


def test_only_some_classes_are_looked_at_and_the_others_are_kept_beside(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,y\n1,ok\n2,fraud\n3,ok\n4,fraud\n")
    spec = DataConfig(kind="csv", path="d.csv", only=["fraud"], limit=1)
    found = load(spec, tmp_path)
    assert found.x.tolist() == [[2.0]]
    assert found.classes == ("fraud", "ok")
    assert found.others is not None
    assert [side.tolist() for side in found.others] == [[[1.0], [3.0]], [1, 1]]
    with pytest.raises(DataError, match="names the class 'fruad', did you mean 'fraud'"):
        load(DataConfig(kind="csv", path="d.csv", only=["fruad"]), tmp_path)
