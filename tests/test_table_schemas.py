"""10,000 random tables from file to attack and back, and the plain check that judges them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_tables import Plain, Row, random_table, read_csv, write_csv

from withstand import attacks
from withstand.data import columns_of, load_table
from withstand.models import FunctionModel
from withstand.threat import Box, Threat
from withstand.threat.tabular import Table


def written(table: Table, rows: Any, path: Path) -> list[Row]:
    """Rows as csv, read again by Python's own reader."""
    columns = table.decode(rows)
    write_csv(path, [{n: str(one[row]) for n, one in columns.items()} for row in range(len(rows))])
    return read_csv(path)


def model_of(rows: Any, seed: int) -> FunctionModel:
    """A linear model whose boundary goes through the middle of some rows."""
    draw = np.random.default_rng(seed)
    weights = draw.normal(0, 1, rows.shape[1]) / np.maximum(rows.std(0), 1)
    middle = np.median((rows * weights).sum(1))

    def scores(x: Any) -> Any:
        margin = (x.astype(float) * weights).sum(1) - middle
        return np.stack([np.zeros(len(x)), margin], 1)

    return FunctionModel(scores, domain=Box(-1e9, 1e9))


def attacked(seed: int, folder: Path) -> int:
    """Attack a random table and check what comes of it; how many rows were fooled."""
    plain = random_table(seed)
    file, data = plain.write(folder)
    table = load_table(file)
    x = table.encode(columns_of(data, table))
    assert table.capability.wrong(x) == []
    assert not any(plain.wrong(row, row) for row in plain.rows)
    model = model_of(x, seed)
    result = attacks.run(
        attacks.TableSearch(generations=3, children=5),
        model,
        torch.from_numpy(x),
        model.labels(torch.from_numpy(x)),
        Threat(region=table.capability, access="scores"),
        seed=seed,
    )
    before = written(table, x, folder / "before.csv")
    after = written(table, result.x_adv.numpy(), folder / "after.csv")
    again = table.encode(columns_of(folder / "after.csv", table))
    np.testing.assert_array_equal(again, result.x_adv.numpy())
    labels = model.labels(torch.from_numpy(again)) != model.labels(torch.from_numpy(x))
    assert bool(labels[result.success].all())
    for row in np.flatnonzero(result.success.numpy()):
        assert plain.wrong(before[row], after[row]) == [], seed
    return int(result.success.sum())


def test_what_is_reported_of_random_tables_keeps_every_rule(tmp_path: Path) -> None:
    assert sum(attacked(seed, tmp_path) > 0 for seed in range(20)) >= 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_is_reported_of_10_000_random_tables_keeps_every_rule(tmp_path: Path) -> None:
    assert sum(attacked(seed, tmp_path) for seed in range(10_000)) > 20_000


FEATURES: dict[str, Any] = {
    "amount": {"lower": 0.0, "upper": 9.0, "step": 0.25, "cost": 2},
    "count": {"lower": 0, "upper": 9, "integer": True, "change": "increase"},
    "held": {"lower": 0, "upper": 9, "change": "none"},
    "kind": {"values": ["a", "b", "c"], "allow": {"a": ["b"]}, "fixed": 1},
    "day": {"date": True, "lower": "2026-01-01", "upper": "2026-12-31", "most": 5},
    "share": {"lower": 0, "upper": 9, "share": 0.5},
    "ios": {"lower": 0, "upper": 1, "integer": True},
    "web": {"lower": 0, "upper": 1, "integer": True},
    "made": None,
}
CLEAN = {
    "amount": "1.5", "count": "3", "held": "4", "kind": "a", "day": "2026-03-01", "share": "2",
    "ios": "1", "web": "0", "made": "4.5",
}  # fmt: skip


def plain_one(**limits: Any) -> Plain:
    told = {"features": FEATURES, "choices": [{"columns": ["ios", "web"], "cost": 3}], **limits}
    return Plain(
        told,
        [CLEAN],
        [("amount <= held", lambda row: (float(row["amount"]) - float(row["held"]), 1.0))],
        {"made": lambda row: float(row["amount"]) + float(row["count"])},
    )


@pytest.mark.parametrize(
    ("change", "limits", "says"),
    [
        ({"amount": "1.6", "made": "4.6"}, {}, "amount is 1.6, no multiple"),
        ({"amount": "9.25", "made": "12.25"}, {}, "amount is 9.25, out of its range"),
        ({"amount": "5", "made": "8"}, {}, "amount <= held lacks 1.0"),
        ({"count": "3.5", "made": "5"}, {}, "count is 3.5, which is not whole"),
        ({"count": "2", "made": "3.5"}, {}, "count moves by -1"),
        ({"held": "5"}, {}, "held was not to change"),
        ({"kind": "c"}, {}, "must not go from 'a' to 'c'"),
        ({"kind": "x"}, {}, "is 'x', which is no category"),
        ({"day": "2026-03-07"}, {}, "day moves by 6.0, more than 5"),
        ({"day": "2025-12-31"}, {}, "day is 2025-12-31, out of its range"),
        ({"share": "3.1"}, {}, "share moves by 1.1"),
        ({"ios": "0"}, {}, "are ['0', '0']"),
        ({"web": "1"}, {}, "are ['1', '1']"),
        ({"count": "4"}, {}, "made is 4.5, which is not 5.5"),
        ({"kind": "b", "day": "2026-03-02"}, {"most_changed": 1}, "2 features change"),
        ({"ios": "0", "web": "1", "share": "2.5"}, {"most_changed": 1}, "2 features change"),
        ({"amount": "2", "made": "5"}, {"most_cost": 0.9}, "costs 1.0"),
        ({"ios": "0", "web": "1", "kind": "b"}, {"most_cost": 3.5}, "costs 4"),
    ],
)
def test_the_plain_check_notices_what_is_not_allowed(
    change: Row, limits: dict[str, Any], says: str
) -> None:
    found = plain_one(**limits).wrong(CLEAN, {**CLEAN, **change})
    assert says in "; ".join(found)


def test_the_plain_check_allows_what_is_allowed() -> None:
    change = {"amount": "2", "count": "4", "made": "6", "kind": "b", "ios": "0", "web": "1"}
    plain = plain_one(most_changed=4, most_cost=5)
    assert plain.wrong(CLEAN, {**CLEAN, **change}) == []
