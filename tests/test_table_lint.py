"""Rules that cannot mean what they say are named, and those that can are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ran

from withstand.config import TableConfig
from withstand.data import columns_of, table_of
from withstand.data.schema import Finding, lint

AMOUNT = {"lower": 0, "upper": 100}
SOUND: dict[str, Any] = {
    "features": {
        "country": {"values": ["DE", "FR"], "fixed": 2},
        "a": {"lower": 0, "upper": 100, "cost": 1},
        "b": {"lower": 0, "upper": 100, "step": 0.5},
        "n": {"lower": 0, "upper": 9, "integer": True},
        "age": {"change": "none"},
        "ratio": None,
        "ios": {"integer": True, "lower": 0, "upper": 1},
        "web": {"integer": True, "lower": 0, "upper": 1},
    },
    "choices": [{"columns": ["ios", "web"], "cost": 3}],
    "derived": {"ratio": "a / max(b, 1)"},
    "relations": ["a <= b", "country == 'FR' -> n >= 1", "n <= 0 or a >= 1"],
    "most_cost": 10,
    "stake": "a",
}
ROWS = """\
country,a,b,n,age,ratio,ios,web
DE,1,2,0,30,0.5,1,0
FR,3,4.5,2,31,0.6666667,0,1
"""


def found(told: dict[str, Any], rows: Path | None = None) -> list[Finding]:
    spec = TableConfig.model_validate({**SOUND, **told})
    table = table_of(spec)
    return lint(spec, table, None if rows is None else columns_of(rows, table))


def features(**changed: Any) -> dict[str, Any]:
    return {"features": {**SOUND["features"], **changed}}


def relations(*texts: str) -> dict[str, Any]:
    return {"relations": list(texts)}


def test_nothing_is_found_in_a_sound_table(tmp_path: Path) -> None:
    assert found({}) == []
    (tmp_path / "rows.csv").write_text(ROWS)
    assert found({}, tmp_path / "rows.csv") == []


@pytest.mark.parametrize(
    ("told", "check", "where", "level"),
    [
        # The rule of a published benchmark: (0 <= a) or (0 < b), for counts.
        (relations("0 <= n or 0 < a"), "always-holds", "0 <= n or 0 < a", "problem"),
        (relations("ratio <= 1000"), "always-holds", "ratio <= 1000", "problem"),
        (relations("a * b <= 10001"), "always-holds", "a * b <= 10001", "problem"),
        (relations("a + b < -1"), "contradictory", "a + b < -1", "problem"),
        (relations("n >= 10"), "contradictory", "n >= 10", "problem"),
        (relations("a >= b + 1", "b >= n", "n >= a"), "contradictory",
         "a >= b + 1; b >= n; n >= a", "problem"),
        (relations("a == 3 ~ 0.1", "a == 4 ~ 0.1", "b <= 9"), "contradictory",
         "a == 3 ~ 0.1; a == 4 ~ 0.1", "problem"),
        (relations("a <= b", "n <= a", "n <= b"), "implied", "n <= b", "note"),
        (relations("a + n <= b", "a <= b"), "implied", "a <= b", "note"),
        (relations("a <= b", "a<=b"), "duplicate", "a<=b", "problem"),
        (relations("age <= 100"), "immutable-relation", "age <= 100", "note"),
        (features(age={"change": "none", "cost": 2}), "cost-of-nothing", "age", "problem"),
        (features(age={"change": "none", "most": 2}), "limit-of-nothing", "age", "problem"),
        (features(n={"lower": 3, "upper": 3}) | relations(), "cannot-move", "n", "problem"),
        (features(b={**AMOUNT, "step": 5, "most": 2}), "cannot-move", "b", "problem"),
        (features(country={"values": ["DE", "FR"], "allow": {"DE": ["FR"], "FR": []}}),
         "unreachable-category", "country", "note"),
        (features(ratio={"change": "none"}), "derived-with-keys", "ratio", "problem"),
        (features(a={**AMOUNT, "fixed": 11}, b={**AMOUNT, "fixed": 12}, n={**AMOUNT, "fixed": 20},
                  country={"values": ["DE", "FR"], "fixed": 30}) | {"most_cost": 2.5},
         "nothing-affordable", "most_cost", "problem"),
        (features(n={"integer": True, "lower": 0, "upper": 2**24 + 2}), "single-precision", "n",
         "problem"),
        (features(b={"step": 0.01, "lower": 0, "upper": 1e6}), "single-precision", "b", "problem"),
    ],
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_named(
    told: dict[str, Any], check: str, where: str, level: str
) -> None:
    said = [(one.check, one.where, one.level) for one in found(told)]
    assert (check, where, level) in said, said


def test_what_is_hard_to_break_is_told_apart_from_what_always_holds() -> None:
    said = {one.check: one.level for one in found(relations("abs(a - 37.123) >= 1e-9"))}
    assert said == {"hard-to-break": "note"}


def test_where_nothing_can_change_there_is_nothing_to_attack() -> None:
    told = {
        "features": {"a": {"change": "none"}, "b": None},
        "choices": [], "relations": [], "derived": {"b": "2 * a"}, "stake": None, "most_cost": None,
    }  # fmt: skip
    assert [one.check for one in found(told)] == ["nothing-changes"]


@pytest.mark.parametrize(
    ("rows", "told", "check", "text"),
    [
        ("DE,5,2,0,30,2.5,1,0\nFR,6,2,2,31,3,0,1\n", {}, "rows-break-it",
         "2 of 4 rows break it, first row 2 (a 5.0, b 2.0)"),
        ("DE,1,200,0,30,0.005,1,0\n", {}, "rows-break-it",
         "1 of 3 rows break it, first row 2 (b 200.0)"),
        ("DE,1,2,0,30,0.6,1,0\n", {}, "rows-break-it",
         "1 of 3 rows break it, first row 2 (a 1.0, b 2.0, ratio 0.6)"),
        ("DE,1,2,0,30,0.5,1,1\n", {}, "rows-break-it",
         "1 of 3 rows break it, first row 2 (ios 1, web 1)"),
        ("DE,1,2,0,30,0.5,1,0\n", {"stake": "a - 2"}, "stake",
         "is -1 in row 0, one of 2 such rows"),
        ("DE,1,2,0,30,0.5,1,0\n", features(country={"values": ["DE", "FR", "IT"]}),
         "absent-category", "no row is 'IT'"),
        ("DE,1,2,0,30,0.5,1,0\n",
         features(country={"values": ["DE", "FR", "IT"],
                           "allow": {"DE": ["FR"], "FR": ["DE"], "IT": ["DE"]}}),
         "unreachable-category", "no row is 'IT', and allow lets none become it"),
        ("DE,1,2,0,16777217,0.5,1,0\n", features(age={"integer": True, "change": "none"}),
         "single-precision",
         "is 16777217 in row 2, which single precision cannot hold, as in 1 rows"),
    ],
)  # fmt: skip
def test_what_the_data_says_of_a_rule_is_told_with_the_row(
    tmp_path: Path, rows: str, told: dict[str, Any], check: str, text: str
) -> None:
    (tmp_path / "rows.csv").write_text(ROWS + rows)
    said = [(one.check, one.text) for one in found(told, tmp_path / "rows.csv")]
    assert (check, text) in said, said


def test_a_constant_column_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS.replace(",31,", ",30,"))
    said = [(one.check, one.where, one.level) for one in found({}, tmp_path / "rows.csv")]
    assert said == [("constant", "age", "note")]


def test_what_the_data_happen_to_keep_is_not_proven(tmp_path: Path) -> None:
    told = relations("age <= 31", "a <= age")
    (tmp_path / "rows.csv").write_text(ROWS)
    for said in (found(told), found(told, tmp_path / "rows.csv")):
        assert "always-holds" not in {one.check for one in said}
    (only,) = [one for one in said if one.where == "age <= 31" and one.check == "hard-to-break"]
    assert only.level == "note"


def test_what_follows_from_a_linear_derivation_is_known() -> None:
    told = {
        "features": {"a": AMOUNT, "b": AMOUNT, "sum": None},
        "choices": [], "derived": {"sum": "a + b"}, "stake": None, "most_cost": None,
    }  # fmt: skip
    assert [one.check for one in found({**told, **relations("a <= `sum`")})] == [
        "hard-to-break",
        "implied",
    ]
    said = found({**told, **relations("a >= `sum` + 1")})
    assert [(one.check, one.where) for one in said] == [("contradictory", "a >= `sum` + 1")]


def test_proofs_agree_with_every_row_of_small_tables() -> None:
    """Whatever is said to hold always, never, or to follow: all rows of the grid agree."""
    draw = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    counted: dict[str, int] = {}
    whole = {"integer": True, "lower": 0, "upper": 3}
    for _ in range(30):
        texts = []
        for _ in range(3):
            k = draw.integers(-2, 3, 3)
            texts.append(f"{k[0]} * a + {k[1]} * b + {k[2]} * c <= {draw.integers(-6, 8)}")
        told = {
            "features": dict.fromkeys("abc", whole), "choices": [], "derived": {},
            "relations": texts, "most_cost": None, "stake": None,
        }  # fmt: skip
        table = table_of(TableConfig.model_validate(told))
        holds = {
            one.text: one.holds(grid, table.capability.index) for one in table.capability.relations
        }
        for one in found(told):
            counted[one.check] = counted.get(one.check, 0) + 1
            if one.check == "always-holds":
                assert holds[one.where].all()
            if one.check == "contradictory":
                together = [holds[text] for text in one.where.split("; ")]
                assert not np.logical_and.reduce(together).any()
            if one.check == "implied":
                rest = np.logical_and.reduce([holds[text] for text in texts if text != one.where])
                assert holds[one.where][rest].all()
    assert min(counted.get(key, 0) for key in ("always-holds", "contradictory", "implied")) >= 5


def test_findings_are_told_with_their_code(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text(
        "features: {a: {lower: 0, upper: 9}, b: {lower: 0, upper: 9}}\n"
        "relations: [a <= 9, a <= b]\n"
    )
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3,2.5\n")
    done = ran("table", "check", "table.yaml", folder=tmp_path)
    assert done.returncode == 1
    assert "problem: a <= 9\n  holds whatever a row within the ranges is" in done.stdout
    assert done.stdout.endswith("1 problem, 0 notes\n")
    done = ran("table", "check", "table.yaml", "rows.csv", "--json", folder=tmp_path)
    assert done.returncode == 1
    said = json.loads(done.stdout)["findings"]
    assert [(one["check"], one["where"]) for one in said] == [
        ("always-holds", "a <= 9"),
        ("rows-break-it", "a <= b"),
    ]
    done = ran("table", "check", folder=tmp_path)
    assert done.returncode == 2
    assert "withstand.yaml not found" in done.stderr
