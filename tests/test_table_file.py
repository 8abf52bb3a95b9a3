"""table.yaml, and rows as people keep them: read, written to csv, and read again the same."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from commands import ran
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_tables import TEXTS, read_csv, write_csv

from withstand import WithstandError
from withstand._errors import DataError
from withstand.config import DataConfig, TableConfig, table_schema
from withstand.data import Columns, columns_of, load, load_table, table_of
from withstand.threat.tabular import Relation, Table, read_truth, read_value

ROOT = Path(__file__).parents[1]


def table(**features: Any) -> Table:
    return table_of(TableConfig.model_validate({"features": features}))


def through_csv(told: Table, rows: Any, folder: Path) -> Any:
    columns = told.decode(rows)
    path = folder / "rows.csv"
    write_csv(path, [{n: str(c[i]) for n, c in columns.items()} for i in range(len(rows))])
    return told.encode(columns_of(path, told))


texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1
)
DAYS = (date(9999, 12, 31) - date(1970, 1, 1)).days, (date(1, 1, 1) - date(1970, 1, 1)).days


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(texts, min_size=2, max_size=6, unique=True),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4),
    st.lists(st.integers(-(2**24), 2**24), min_size=4, max_size=4),
    st.lists(st.integers(DAYS[1], DAYS[0]), min_size=4, max_size=4),
    st.sampled_from([0.01, 0.05, 0.25, 0.001, 5.0, 25.0, 1e-4, 0.3]),
    st.integers(-30_000, 30_000),
)
def test_rows_are_the_same_after_a_round_trip_through_csv(
    tmp_path: Path,
    labels: list[str],
    floats: list[float],
    whole: list[int],
    days: list[int],
    step: float,
    count: int,
) -> None:
    told = table(
        text={"values": labels},
        number={"change": "none"},
        whole={"change": "none", "integer": True},
        day={"change": "none", "date": True},
        grid={"change": "none", "step": step},
        flag={"values": ["false", "true"]},
    )
    codes = [n % len(labels) for n in range(4)]
    grid = np.array([count, count + 1, -count, 0]) * step
    rows = np.array([codes, floats, whole, days, grid, [0, 1, 1, 0]], np.float32).T
    np.testing.assert_array_equal(through_csv(told, rows, tmp_path), rows)
    # What a person reads is what was meant.
    seen = read_csv(tmp_path / "rows.csv")
    assert [row["text"] for row in seen] == [labels[code] for code in codes]
    assert [row["day"] for row in seen] == [str(date(1970, 1, 1) + timedelta(d)) for d in days]
    assert [float(row["grid"]) for row in seen] == pytest.approx(grid.tolist(), rel=1e-12)
    assert [row["flag"] for row in seen] == ["false", "true", "true", "false"]


def test_decimals_are_as_short_as_they_were() -> None:
    values = np.array([0.1, 1.45, 1234.56, 5e-7, 3.0, -0.07, 16777216.0, 1e30, 1.17549435e-38])
    rows = values.astype(np.float32)[:, None]
    found = table(a={"change": "none"}).decode(rows)["a"]
    assert found[:7].tolist() == values[:7].tolist()
    np.testing.assert_array_equal(found.astype(np.float32), rows[:, 0])


def test_texts_are_what_they_are_in_csv(tmp_path: Path) -> None:
    told = table(text={"values": TEXTS})
    rows = np.arange(len(TEXTS), dtype=np.float32)[:, None]
    np.testing.assert_array_equal(through_csv(told, rows, tmp_path), rows)
    # 007 is no 7, and NA is no missing value.
    assert told.decode(rows)["text"].tolist() == TEXTS


@pytest.mark.parametrize(
    ("labels", "column", "codes"),
    [
        (["1", "2", "3.5"], np.array([2.0, 3.5, 1.0]), [1, 2, 0]),
        (["1.1", "2"], np.array([1.1, 2], np.float32), [0, 1]),
        (["false", "true"], np.array([True, False]), [1, 0]),
        (["false", "true"], [True, False], [1, 0]),
        (["1", "2"], pd.Series([2, 1], dtype="Int64"), [1, 0]),
        (["a", "b"], pd.Categorical(["b", "a", "b"]), [1, 0, 1]),
        (["1", "a"], np.array([1, "a"], object), [0, 1]),
        (["true", "1"], np.array([1, True], object), [1, 0]),
    ],
)
def test_categories_are_known_however_they_are_stored(
    labels: list[str], column: Any, codes: list[int]
) -> None:
    assert table(a={"values": labels}).encode({"a": column})[:, 0].tolist() == codes


@pytest.mark.parametrize("gone", [None, np.nan, pd.NA, pd.NaT, ""])
def test_what_is_missing_is_missing_however_it_is_stored(gone: Any) -> None:
    for features in ({"values": ["a"]}, {"change": "none"}, {"change": "none", "date": True}):
        with pytest.raises(WithstandError, match="'a' is missing in row 0"):
            table(a=features).encode({"a": np.array([gone], object)})


def test_an_empty_text_may_be_a_category(tmp_path: Path) -> None:
    told = table(a={"values": ["", "b"]}, b={"change": "none"})
    rows = np.array([[0, 1], [1, 2]], np.float32)
    np.testing.assert_array_equal(through_csv(told, rows, tmp_path), rows)


def test_dates_are_known_however_they_are_stored(tmp_path: Path) -> None:
    told = table(a={"change": "none", "date": True})
    days = np.array(["2026-01-31", "1950-02-28"], "datetime64[D]")
    wanted = days.astype(np.int64).tolist()
    for stored in (
        pa.array(days),
        pa.array(days.astype("datetime64[ns]")),
        pa.array(days.astype("datetime64[ms]"), pa.timestamp("ms", "UTC")),
        pa.array(["2026-01-31", "1950-02-28 00:00:00"]),
        pa.array(["2026-01-31", "1950-02-28"]).dictionary_encode(),
    ):
        pq.write_table(pa.table({"a": stored}), tmp_path / "a.parquet")
        assert told.encode(Columns(tmp_path / "a.parquet"))[:, 0].tolist() == wanted


def test_columns_of_parquet_are_read_as_far_as_needed(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    stored = {
        "n": pa.array(range(100)), "b": pa.array([True, False] * 50),
        "d": pa.array([Decimal(1), Decimal("2.5")] * 50), "t": pa.array(["x", None] * 50),
        "m": pa.array([1, None] * 50), "default.payment": pa.array([0.5] * 100),
    }  # fmt: skip
    pq.write_table(pa.table(stored), file, row_group_size=10)
    columns = Columns(file, limit=25)
    assert list(columns) == list(stored)
    assert columns.rows == 25
    assert columns["n"].tolist() == list(range(25))
    assert columns["b"][:2].tolist() == [True, False]
    assert columns["d"][:2].tolist() == [1.0, 2.5]
    assert columns["t"][:2].tolist() == ["x", None]
    assert np.isnan(columns["m"][1])
    assert columns["default.payment"][0] == 0.5
    # As data frames keep their index: it is no column.
    pd.DataFrame({"a": [1, 2]}, index=pd.Index([7, 8], name="key")).to_parquet(file)
    assert list(Columns(file)) == ["a"]


def test_texts_in_rules_may_hold_what_means_something_elsewhere() -> None:
    for label in TEXTS:
        rule = Relation.read(f"a == {label!r} -> `b->c` <= 1", ["a", "b->c"], {"a": ["x", label]})
        index = {"a": 0, "b->c": 1}
        rows = np.array([[0, 5], [1, 5], [1, 1]])
        assert rule.holds(rows, index).tolist() == [True, False, True]


def test_categories_are_known_in_what_is_derived_and_at_stake() -> None:
    spec = {
        "features": {"c": {"values": ["DE", "FR"]}, "a": {"lower": 0, "upper": 9}, "d": None},
        "derived": {"d": "where(c == 'FR', 2, 1) * a"},
        "stake": "where(c == 'FR', 0, a)",
    }
    told = table_of(TableConfig.model_validate(spec))
    rows = np.array([[0, 3, 3], [1, 3, 6]], np.float32)
    assert not told.capability.wrong(rows)
    found = told.at_stake(rows)
    assert found is not None
    assert found.tolist() == [3, 0]


def test_allow_may_name_nothing(tmp_path: Path) -> None:
    told = table(c={"values": ["a", "b"], "allow": {"a": []}})
    x, after = np.array([[0.0], [1.0]]), np.array([[1.0], [0.0]])
    assert told.capability.contains(x, after).tolist() == [False, True]


def test_the_published_schema_is_the_schema() -> None:
    published = json.loads((ROOT / "docs/reference/table.schema.json").read_text())
    assert published == table_schema(), "write it again with withstand.config.table_schema()"


FILE = """\
features:
  country: {values: [DE, FR, NL], allow: {DE: [FR]}, fixed: 5}
  amount: {lower: 1, upper: 2000, step: 0.01, change: decrease, cost: 1, share: 0.8}
  usual: {change: none}
  ratio:
  opened: {date: true, change: none, lower: 2020-01-01, upper: 2026-12-31}
  ios: {integer: true, lower: 0, upper: 1}
  web: {integer: true, lower: 0, upper: 1}
choices:
  - {columns: [ios, web], cost: 2}
derived: {ratio: "amount / max(usual, 1)"}
relations: ["country == 'FR' -> amount <= 1000"]
most_changed: 2
most_cost: 100
stake: amount
currency: EUR
"""


def test_a_table_is_told_in_words_and_for_machines(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text(FILE)
    done = ran("table", "show", "table.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    for words in (
        "country DE, FR, NL yes DE to FR 5 once",
        "amount multiples of 0.01, 1 to 2000 down 80 % 1 each",
        "ratio = amount / max(usual, 1) follows",
        "opened dates, 2020-01-01 to 2026-12-31 no",
        "one of: ios, web, 2 for another",
        "always: country == 'FR' -> amount <= 1000",
        "at most 2 features change",
        "an attacker spends at most 100 EUR",
        "at stake in a row: amount EUR",
    ):
        assert words in said
    done = ran("table", "show", "table.yaml", "--json", folder=tmp_path)
    told = json.loads(done.stdout)
    assert [one["name"] for one in told["features"]][:2] == ["country", "amount"]
    assert told["features"][3]["derived"] == "amount / max(usual, 1)"
    assert told["relations"] == ["country == 'FR' -> amount <= 1000"]


def test_the_file_is_valid_by_its_schema_word_for_word() -> None:
    schema = table_schema()
    known = schema["$defs"]["FeatureConfig"]["properties"]
    told = yaml.safe_load(FILE)
    assert set(told) <= set(schema["properties"])
    for one in told["features"].values():
        assert set(one or {}) <= set(known)
    loaded = load_table_text(FILE)
    assert loaded.columns == tuple(told["features"])


def load_table_text(text: str) -> Table:
    return table_of(TableConfig.model_validate(yaml.safe_load(text)))


def test_a_table_is_loaded_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text(FILE)
    assert load_table(tmp_path / "table.yaml") == load_table_text(FILE)


def test_every_expression_of_the_reference_reads() -> None:
    text = (ROOT / "docs/reference/relations.md").read_text()
    columns = [
        "paid", "billed", "total", "net", "tax", "rate", "interest", "amount", "discount",
        "country", "opened", "a", "b", "c", "term", "n", "r", "paid_1", "paid_2",
    ]  # fmt: skip
    labels = {"country": ["DE", "FR"]}
    rules, values = (part.split("\n\n|")[1] for part in text.split("\n## ")[1:3])
    for cells, read in ((rules, read_truth), (values, read_value)):
        told = [re.match(r" (.*?) \| ", line) for line in cells.split("\n|")[2:]]
        examples = [
            one.strip("` ")
            for found in told
            if found
            for one in re.findall(r"`` .*? ``|`.*?`", found[1])
        ]
        assert len(examples) >= 10
        for one in examples:
            if one == "odd name":
                read_value("`odd name`", ["odd name"])
            elif one.startswith("+"):
                assert all(read_value(f"a {op} b", columns) for op in one.split())
            else:
                read(one, columns, labels)


def test_classes_do_not_depend_on_the_limit_and_none_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text("features: {a: {lower: 0, upper: 9}}\n")
    rows = "a,y\n1,legit\n2,legit\n3,fraud\n"
    (tmp_path / "d.csv").write_text(rows)
    spec = DataConfig(kind="csv", path="d.csv", table="table.yaml", limit=2)
    found = load(spec, tmp_path)
    assert (found.classes, found.y.tolist()) == (("fraud", "legit"), [1, 1])
    (tmp_path / "d.csv").write_text(rows + "4,\n")
    with pytest.raises(DataError, match="column 'y' is missing in row 3"):
        load(spec, tmp_path)


def test_a_number_of_seconds_is_no_date() -> None:
    table = table_of(
        TableConfig.model_validate({"features": {"d": {"date": True, "change": "none"}}})
    )
    assert table.encode({"d": np.array([0, 20000])}).tolist() == [[0], [20000]]
    for wrong in (20260131, 1_700_000_000, 1.5):
        with pytest.raises(DataError, match="'d' is no day since 1970 in row 1"):
            table.encode({"d": np.array([0, wrong])})
