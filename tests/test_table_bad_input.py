"""What is wrong with a table, its file or its data, in one line: the row, the rule, and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from commands import ran
from processes import withstand

from withstand import WithstandError
from withstand.config import load_config
from withstand.data import Columns, columns_of, load, load_table

HEAD = "country,amount,fee,opened,fraud\n"
GOOD = "DE,10.5,1,2026-01-31,0\nFR,20,2,2026-02-01,1\nDE,30,3,2026-02-02,0\n"
TABLE: dict[str, Any] = {
    "features": {
        "country": {"values": ["DE", "FR"]},
        "amount": {"lower": 0, "upper": 100, "step": 0.5},
        "fee": {"lower": 0, "upper": 9, "integer": True},
        "opened": {"date": True, "change": "none"},
    },
    "relations": ["fee <= amount"],
}
CONFIG = """\
model: {kind: sklearn, factory: model.py:build}
data: {kind: csv, path: rows.csv, y: fraud, table: table.yaml}
threat: {access: scores}
evaluate: {preset: smoke}
"""


def given(folder: Path, rows: str = GOOD, head: str = HEAD, **table: Any) -> Path:
    (folder / "rows.csv").write_text(head + rows)
    (folder / "table.yaml").write_text(yaml.safe_dump({**TABLE, **table}, sort_keys=False))
    (folder / "withstand.yaml").write_text(CONFIG)
    return folder


def encoded(folder: Path) -> Any:
    table = load_table(folder / "table.yaml")
    return table.encode(columns_of(folder / "rows.csv", table))


def features(**changed: Any) -> dict[str, Any]:
    return {**TABLE["features"], **changed}


def test_good_rows_are_read(tmp_path: Path) -> None:
    data = load(load_config(given(tmp_path) / "withstand.yaml").data, tmp_path)
    day = (np.datetime64("2026-01-31") - np.datetime64("1970-01-01")).astype(int)
    assert data.x[0].tolist() == [0, 10.5, 1, day]
    assert data.y.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("IT,1,1,2026-01-31,0\n", "'country' is 'IT' in row 3, which is none of its categories"),
        ("de,1,1,2026-01-31,0\n", "'de' in row 3, .*did you mean 'DE'"),
        (",1,1,2026-01-31,0\n", "'country' is missing in row 3; fill it in"),
        ("DE,,1,2026-01-31,0\n", "'amount' is missing in row 3; fill it in"),
        ("DE,NaN,1,2026-01-31,0\n", "'amount' is missing in row 3"),
        ("DE,inf,1,2026-01-31,0\n", "'amount' is infinite in row 3"),
        ("DE,1e39,1,2026-01-31,0\n", "'amount' is beyond single precision in row 3"),
        ("DE,ten,1,2026-01-31,0\n", "'amount' is 'ten' in row 3, which is no number"),
        ("DE,1,1,31.1.2026,0\n", "'opened' is '31.1.2026' in row 3, .* write it as 2026-01-31"),
        ("DE,1,1,2026-02-30,0\n", "'opened' is '2026-02-30' in row 3, which is no date"),
        ("DE,1,1,2026,0\n", "'opened' is '2026' in row 3, which is no date"),
        ("DE,1,1,,0\n", "'opened' is missing in row 3"),
        ("DE,1,1,2026-01-31T10:30,0\n", "'opened' has a time of day in row 3"),
        ("DE,1,1\n", "cannot be read as csv .*line 5: Expected 5 columns, got 3"),
    ],
)
def test_a_bad_value_is_named_with_its_row(tmp_path: Path, rows: str, says: str) -> None:
    given(tmp_path, GOOD + rows)
    with pytest.raises(WithstandError, match=says) as error:
        encoded(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("head", "rows", "says"),
    [
        (
            "country,amounts,fee,opened,fraud\n",
            GOOD,
            "'amount' of the table is missing, did you mean 'amounts'",
        ),
        ("country,amount,amount,opened,fraud\n", GOOD, "has the column 'amount' twice"),
        (HEAD, "", "has no rows"),
        ("", "", "Empty CSV file"),
    ],
)
def test_a_file_that_is_no_such_table_is_named(
    tmp_path: Path, head: str, rows: str, says: str
) -> None:
    given(tmp_path, rows, head)
    with pytest.raises(WithstandError, match=says):
        encoded(tmp_path)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    for name, content, says in [
        ("rows.parquet", b"no parquet", "cannot be read as parquet"),
        ("rows.csv", b"a,b\n\xff\xfe,1\n", "cannot be read as csv"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WithstandError, match=says):
            Columns(tmp_path / name, texts=["a"])
    with pytest.raises(WithstandError, match=r"rows.parket not found, did you mean"):
        Columns(tmp_path / "rows.parket")
    pq.write_table(pa.table({"lists": [[1], [2]]}), tmp_path / "lists.parquet")
    with pytest.raises(WithstandError, match="'lists' holds list"):
        Columns(tmp_path / "lists.parquet")["lists"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"relation": []}, "unknown key 'relation', did you mean 'relations'"),
        ({"features": features(fee={"uper": 9})}, "'features.fee.uper', did you mean 'upper'"),
        ({"features": features(fee={"lower": 9, "upper": 0})}, "lower is 9, above upper 0"),
        ({"features": features(fee={"lower": 0})}, "'fee' can be changed and has no upper"),
        ({"features": features(fee={"change": "up"})}, "fee.change is 'up'; it is one of both"),
        ({"features": features(fee={"lower": "low"})}, "a finite number, or a date such as 2026"),
        ({"features": features(fee={"lower": "2026-01-01"})}, "lower is a date; say date: true"),
        ({"features": {}}, "features is empty"),
        ({"features": features(country={"values": ["DE"], "step": 1})}, "step is not for a column"),
        ({"features": features(country={"values": ["DE"], "allow": {"DE": ["FR"]}})}, "'FR', whic"),
        ({"features": features(country={"values": [True]})}, "bare yes, no, on, off as true"),
        ({"relations": ["fee <= amuont"]}, "'amuont' is no feature, did you mean 'amount'"),
        ({"relations": ["fee <="]}, "relation 'fee <=': invalid syntax"),
        ({"relations": ["fee"]}, "'fee' is no comparison"),
        ({"relations": ["fee == 'DE'"]}, "'DE'.* is not known there; only columns of categories"),
        ({"relations": ["country == 'IT'"]}, "country has no category 'IT'; it is one of DE, FR"),
        ({"relations": ["country <= 'FR'"]}, "categories have no order"),
        ({"relations": ["opened <= date('soon')"]}, "'soon' is no date; write 2026-01-31"),
        ({"relations": ["fee.real <= 1"]}, "'fee.real' is not known"),
        ({"derived": {"fee": "amount + opened", "amount": "fee"}}, "amount, fee follow from each"),
        ({"derived": {"fees": "amount"}}, "'fees' is no feature"),
        ({"stake": "amuont"}, "'amuont' is no feature, did you mean 'amount'"),
        ({"choices": [{"columns": ["fee", "tax"]}]}, "'tax' is no feature"),
        ({"most_changed": 0}, "most_changed is 0; give at least 1"),
    ],
)
def test_a_wrong_file_is_named_with_the_key_and_the_fix(
    tmp_path: Path, table: dict[str, Any], says: str
) -> None:
    given(tmp_path, **table)
    with pytest.raises(WithstandError, match=says) as error:
        load_table(tmp_path / "table.yaml")
    assert str(error.value).startswith(str(tmp_path / "table.yaml"))
    assert "\n" not in str(error.value)


def test_a_column_that_is_not_in_the_data_is_named_before_labels_are(tmp_path: Path) -> None:
    given(tmp_path)
    config = (tmp_path / "withstand.yaml").read_text().replace("y: fraud", "y: frauds")
    (tmp_path / "withstand.yaml").write_text(config)
    with pytest.raises(WithstandError, match="no column 'frauds', did you mean 'fraud'"):
        load(load_config(tmp_path / "withstand.yaml").data, tmp_path)


MODEL = """\
import numpy as np
from sklearn.linear_model import LogisticRegression
def build():
    x = np.random.default_rng(0).normal(15, 9, (200, 4))
    return LogisticRegression().fit(x, (x[:, 1] > 15).astype(int))
"""


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    """A category and a rule: the codes are 2, and nothing but the error is said."""
    given(tmp_path, GOOD + "IT,1,1,2026-01-31,0\n")
    done = ran("table", "check", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: column 'country' is 'IT' in row 3")
    assert done.stderr.count("\n") == 1
    (tmp_path / "model.py").write_text(MODEL)
    given(tmp_path, GOOD + "DE,1,2,2026-01-31,0\n")
    done = withstand("evaluate", folder=tmp_path)
    assert done.returncode == 2
    assert "row 3 breaks the rule 'fee <= amount' before any attack" in done.stderr
    # Rules that no row can keep at once, row 0 tells.
    given(tmp_path, relations=["fee >= 4", "fee <= 3"])
    done = ran("evaluate", folder=tmp_path)
    assert done.returncode == 2
    assert "row 0 breaks the rule 'fee >= 4' before any attack" in done.stderr
    done = ran("table", "check", "table.yaml", folder=tmp_path)
    assert done.returncode == 1
    assert "contradictory" in done.stdout


def test_a_constant_feature_is_a_note_and_no_error(tmp_path: Path) -> None:
    given(tmp_path, "DE,10.5,1,2026-01-31,0\nDE,20,1,2026-01-31,1\n")
    assert encoded(tmp_path)[:, 2].tolist() == [1, 1]
    done = ran("table", "check", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "note: fee\n  is the same in all 2 rows" in done.stdout
