"""Drift of a table's features behind the guard: histograms, windows, bounds by chance."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Running, serving
from typer.testing import CliRunner

from withstand._errors import ConfigError, DataError
from withstand.cli._main import app
from withstand.config import TableConfig, load_guard
from withstand.data import Histogram, Histograms, load_histograms, table_of
from withstand.guard.drift import Window
from withstand.guard.serve._service import _read
from withstand.stats import stability, stability_by_chance

Array = np.ndarray[Any, Any]

KINDS = ["shop", "web", "atm", "none"]
RULES = {
    "features": {
        "amount": {"lower": 0, "upper": 1000},
        "kind": {"values": KINDS},
        "visits": {"integer": True, "lower": 0, "upper": 100},
        "held": {"change": "none", "lower": -10, "upper": 10},
    }
}
TABLE = table_of(TableConfig.model_validate(RULES))


def rows(count: int, seed: int, *, amount: float = 50.0, kinds: Any = (0.7, 0.29, 0.01)) -> Array:
    """Most do not visit; nobody is of the kind `none`; one column is always the same."""
    draw = np.random.default_rng(seed)
    made = (
        np.minimum(draw.exponential(amount, count), 1000),
        draw.choice(len(kinds), count, p=kinds),
        np.minimum(draw.geometric(0.3, count) - 1, 100),
        np.full(count, 3.0),
    )
    return np.stack(made, 1).astype(np.float32)


USUAL = Histograms.of(rows(10_000, 0), TABLE)


def window(count: int = 1000, chance: float = 0.001) -> Window:
    return Window(USUAL, rows=count, chance=chance)


def moved(values: Array) -> list[str]:
    one = window(len(values))
    one.add(values)
    return one.told()["moved"]


def test_the_index_of_counts_is_its_closed_form() -> None:
    # Shares of 1/5 and 4/5 that change places.
    assert stability([19.5, 79.5], [79.5, 19.5]) == pytest.approx(2 * 0.6 * np.log(4))
    assert stability([7, 0, 3], [7, 0, 3]) == 0
    # 3.841 is what chi-squared of one degree exceeds in 5 %.
    assert stability_by_chance(2, 1000, 500, 0.05) == pytest.approx(3.8415 * 0.003, rel=1e-4)


def test_bins_are_deciles_or_values_and_the_rest() -> None:
    x = rows(10_000, 0)
    amount, kind = USUAL.features["amount"], USUAL.features["kind"]
    assert amount.counts == (1000,) * 10
    assert amount.points == pytest.approx(np.quantile(x[:, 0], np.arange(1, 10) / 10), rel=1e-6)
    assert kind.points == (0, 1, 2)
    assert kind.counts == (*np.bincount(x[:, 1].astype(int)), 0)
    assert USUAL.features["held"] == Histogram(points=(3.0,), counts=(10_000, 0), single=True)
    # Ties: an edge is there once, and counts are of what is at most that.
    visits = USUAL.features["visits"]
    assert visits.points[0] == 0
    assert visits.counts[0] == (x[:, 2] == 0).sum()
    assert all(sum(one.counts) == 10_000 for one in USUAL.features.values())


def test_of_many_categories_the_frequent_have_a_bin() -> None:
    names = [f"k{n}" for n in range(200)]
    table = table_of(TableConfig.model_validate({"features": {"kind": {"values": names}}}))
    draw = np.random.default_rng(0)
    x = np.minimum(draw.geometric(0.02, 5000), 200)[:, None].astype(np.float32) - 1
    found = Histograms.of(x, table).features["kind"]
    counts = np.bincount(x[:, 0].astype(int), minlength=200)
    assert len(found.points) == 49
    assert found.counts[-1] == np.sort(counts)[:-49].sum() > 0
    assert list(found.points) == sorted(found.points)


def test_a_window_counts_as_a_plain_loop_does() -> None:
    x = rows(700, 1, kinds=(0.5, 0.3, 0.1, 0.1))
    x[:5, 3] = -10, 10, 2.9, 3, 3.1
    one = window(700)
    one.add(x)
    assert one.last is not None
    for place, (name, histogram) in enumerate(USUAL.features.items()):
        counts = [0] * len(histogram.counts)
        for value in x[:, place].astype(float):
            if histogram.single:
                known = value in histogram.points
                counts[histogram.points.index(value) if known else -1] += 1
            else:
                counts[sum(point < value for point in histogram.points)] += 1
        assert one.last.features[name].index == stability(histogram.counts, counts), name


def test_nothing_is_said_before_a_window_is_full() -> None:
    one = window()
    assert one.told() == {
        "rows": 1000, "wanted": 1000, "ended": None, "moved": None, "features": {},
    }  # fmt: skip
    one.add(rows(999, 1, amount=900))
    assert (one.last, one.wanted, one.told()["moved"]) == (None, 1, None)
    one.add(rows(1, 2))
    assert one.last is not None
    assert (one.wanted, one.told()["moved"]) == (1000, ["amount"])


def test_windows_roll_and_do_not_depend_on_how_rows_come() -> None:
    x = np.concatenate([rows(1000, 1, amount=90), rows(1000, 2), rows(300, 3)])
    whole, parts = window(), window()
    whole.add(x)
    told = []
    for part in np.split(x, np.cumsum(np.random.default_rng(0).integers(1, 90, 40))):
        parts.add(part)
        told.append(parts.last)
    assert whole.last is not None
    assert parts.last is not None
    assert whole.last.features == parts.last.features
    assert whole.wanted == parts.wanted == 700
    first = next(one for one in told if one is not None)
    assert first.features["amount"].moved
    assert not parts.last.features["amount"].moved


def test_what_has_not_moved_is_said_to_have_no_more_often_than_promised() -> None:
    # With a chance of 5 % a window, the reference of each ten windows its own.
    wrong = 0
    for seed in range(20):
        usual = Histograms.of(rows(2000, seed), TABLE)
        one = Window(usual, rows=500, chance=0.05)
        for part in np.split(rows(5000, 1000 + seed), 10):
            one.add(part)
            wrong += bool(one.told()["moved"])
    assert wrong <= 10
    # With chances as large there are such windows.
    loose = Window(USUAL, rows=1000, chance=0.99)
    wrong = 0
    for part in np.split(rows(50_000, 5), 50):
        loose.add(part)
        wrong += bool(loose.told()["moved"])
    assert 2 <= wrong <= 40


def test_only_the_feature_that_moved_is_named() -> None:
    x = rows(1000, 7)
    assert moved(x) == []
    assert moved(rows(1000, 7, amount=70)) == ["amount"]
    for place, (name, value) in enumerate(
        [("amount", 500.0), ("kind", 2.0), ("visits", 9.0), ("held", -1.0)]
    ):
        other = x.copy()
        other[:100, place] = value
        assert moved(other) == [name]


def test_a_category_never_seen_before_is_a_drift() -> None:
    x = rows(1000, 8)
    x[:12, 1] = KINDS.index("none")
    assert moved(x) == ["kind"]


def test_memory_does_not_grow_with_rows() -> None:
    one = window()
    x = rows(2500, 9)
    one.add(x)
    tracemalloc.start()
    try:
        for _ in range(20):
            one.add(x)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20_000
    assert most < 5_000_000
    assert not [held for held in vars(one).values() if np.size(held) > 100]


def test_a_file_holds_the_same_histograms_for_categories_in_another_order(tmp_path: Path) -> None:
    file = tmp_path / "histograms.json"
    USUAL.save(file, TABLE)
    assert load_histograms(file, TABLE) == USUAL
    other = json.loads(json.dumps(RULES))
    other["features"]["kind"]["values"] = ["new", *reversed(KINDS)]
    kind = load_histograms(file, table_of(TableConfig.model_validate(other))).features["kind"]
    was = USUAL.features["kind"]
    # shop, web and atm have become 4, 3 and 2.
    assert kind.points == (2, 3, 4)
    assert kind.counts == (*was.counts[2::-1], 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told["features"].pop("held"), "other columns"),
        (lambda told: told.update(rows=9), "rows is 9"),
        (lambda told: told["features"]["held"].update(counts=[10_000]), "1 points and 1 counts"),
        (lambda told: told["features"]["held"].update(counts=[1, 1]), "counts of 'held'"),
        (lambda told: told["features"]["held"].update(counts=[10_001, -1]), "no whole number"),
        (lambda told: told["features"]["held"].update(values=[float("nan")]), "not in order"),
        (lambda told: told["features"]["amount"]["edges"].reverse(), "not in order"),
        (lambda told: told["features"]["kind"]["values"].__setitem__(0, "odd"), "not in"),
        (lambda told: told.update(features=3), "cannot be read"),
        (lambda told: told.clear(), "cannot be read"),
    ],
)
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, change: Any, said: str) -> None:
    file = tmp_path / "histograms.json"
    USUAL.save(file, TABLE)
    told = json.loads(file.read_text())
    change(told)
    file.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=said) as caught:
        load_histograms(file, TABLE)
    assert "\n" not in str(caught.value)
    assert "withstand table histograms" in str(caught.value)


def test_rows_that_do_not_tell_what_is_usual_are_refused() -> None:
    with pytest.raises(DataError, match="299 rows do not tell"):
        Histograms.of(rows(299, 0), TABLE)
    broken = rows(400, 0)
    broken[7, 0] = np.nan
    with pytest.raises(DataError, match=r"row 7 breaks the rule 'amount is not a number'"):
        Histograms.of(broken, TABLE)


def configured(folder: Path, **drift: Any) -> dict[str, Any]:
    (folder / "table.yaml").write_text(json.dumps(RULES))
    USUAL.save(folder / "histograms.json", TABLE)
    told = {"histograms": "histograms.json", "window": 300, **drift}
    x = {"name": "x", "datatype": "FP32", "shape": [-1, 4], "table": "table.yaml", "drift": told}
    return {"m": {"inputs": [x]}}


def test_the_guard_tells_what_drifts_and_counts_no_rows_that_it_refuses(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        async def drift() -> Any:
            told = json.loads((await guard.admin("/status")).body)
            return told["models"]["m"]["drift"]["*"]

        strange = rows(299, 1, amount=400)
        assert (await guard.infer(strange)).status == 200
        for wrong in (np.nan, -5.0):
            broken = strange.copy()
            broken[3, 0] = wrong
            assert (await guard.infer(broken)).status == 400
        assert (await drift())["wanted"] == 1
        metrics = (await guard.admin("/metrics")).body.decode()
        wanted = 'withstand_feature_drift_rows_wanted{input="",model="m"} 1.0'
        assert wanted in metrics
        assert "withstand_feature_drift_index" not in metrics
        # What was counted outlives another configuration, and a new reference begins anew.
        guard.rewrite(delay=2.0)
        await guard.change("/reload")
        assert (await guard.infer(rows(1, 2))).status == 200
        found = await drift()
        assert (found["moved"], found["wanted"]) == (["amount"], 300)
        one = found["features"]["amount"]
        assert one["index"] > one["bound"]
        metrics = (await guard.admin("/metrics")).body.decode()
        labels = '{feature="amount",input="",model="m"}'
        assert f"withstand_feature_drift_index{labels} {one['index']}" in metrics
        assert f"withstand_feature_drift_bound{labels} {one['bound']}" in metrics
        before = guard.service.status()["policy"]
        Histograms.of(rows(5000, 3), TABLE).save(tmp_path / "histograms.json", TABLE)
        await guard.change("/reload")
        assert (await drift())["moved"] is None
        assert guard.service.status()["policy"] != before

    serving(tmp_path, work, models=configured(tmp_path))


@pytest.mark.parametrize(
    ("drift", "said"),
    [
        ({"window": 299}, "window is 299, too few to tell; give 300 or more"),
        ({"chance": 0}, "chance"),
        ({"histograms": None}, "histograms"),
    ],
)
def test_a_drift_that_cannot_be_told_is_an_error_of_one_line(
    tmp_path: Path, drift: Any, said: str
) -> None:
    guard = {"upstream": "http://127.0.0.1:1", "open": True, "models": configured(tmp_path)}
    guard["models"]["m"]["inputs"][0]["drift"].update(drift)
    (tmp_path / "withstand.yaml").write_text(json.dumps({"guard": guard}))
    with pytest.raises(ConfigError, match=said) as caught:
        load_guard(tmp_path / "withstand.yaml")
    assert "\n" not in str(caught.value)


def test_a_drift_needs_a_table_and_its_file(tmp_path: Path) -> None:
    models = configured(tmp_path)
    file = tmp_path / "withstand.yaml"
    guard = {"upstream": "http://127.0.0.1:1", "open": True, "models": models}
    file.write_text(json.dumps({"guard": guard}))
    assert _read(file)
    (tmp_path / "histograms.json").unlink()
    with pytest.raises(ConfigError, match=r"histograms\.json not found; make it with"):
        _read(file)
    del models["m"]["inputs"][0]["table"]
    file.write_text(json.dumps({"guard": guard}))
    with pytest.raises(ConfigError, match="drift needs table"):
        load_guard(file)


def test_the_command_counts_the_rows_of_a_file(tmp_path: Path) -> None:
    columns = TABLE.decode(rows(400, 4))
    values = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, one)) for one in values)]
    # X(*columns.values(), strict=True))]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    (tmp_path / "table.yaml").write_text(json.dumps(RULES))
    words = ["table", "histograms", str(tmp_path / "table.yaml")]
    output = ["--output", str(tmp_path / "usual.json")]
    done = CliRunner().invoke(app, [*words, str(tmp_path / "rows.csv"), *output])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'usual.json'}: 4 features of 400 rows\n"
    found = load_histograms(tmp_path / "usual.json", TABLE)
    assert found == Histograms.of(rows(400, 4), TABLE)
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, ConfigError)
    assert "name a .parquet or .csv file" in str(refused.exception)
