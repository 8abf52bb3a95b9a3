"""The worked example of fraud: its simulator, its table, and every command of its README."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import util
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import withstand

from withstand.config import load_config, load_guard
from withstand.data import load_table
from withstand.evaluate.calibration import calibrate_factor

pytest.importorskip("pandas")
EXAMPLE = Path(__file__).parents[1] / "examples" / "fraud"


def _simulate() -> Any:
    spec = util.spec_from_file_location("fraud_simulate", EXAMPLE / "simulate.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


simulate = _simulate()


@pytest.fixture(scope="module")
def table() -> Any:
    return simulate.simulate(150, seed=3)


def test_every_row_of_the_simulator_keeps_the_rules_of_the_table(table: Any) -> None:
    told = load_table(EXAMPLE / "table.yaml")
    assert told.columns == simulate.COLUMNS
    rows = told.encode({name: table[name].to_numpy() for name in simulate.COLUMNS})
    assert told.capability.wrong(rows) == []
    money = told.at_stake(rows)
    assert money is not None
    np.testing.assert_allclose(money, table.amount, rtol=1e-6)


def test_the_same_seed_gives_the_same_transactions_and_another_gives_others(table: Any) -> None:
    assert simulate.simulate(150, seed=3).equals(table)
    other = simulate.simulate(150, seed=4)
    assert len(other) != len(table) or not other.amount.equals(table.amount)


def test_windows_are_what_a_plain_count_says(table: Any) -> None:
    draw = np.random.default_rng(0)
    late = np.flatnonzero(table.day > 40)
    for place in draw.choice(late, 15, replace=False):
        row = table.iloc[place]
        for days in (1, 7, 30):
            since = (table.time >= row.time - days) & (table.time < row.time)
            own = table[since & (table.customer == row.customer)]
            assert row[f"count_{days}d"] == len(own)
            assert row[f"mean_{days}d"] == pytest.approx(own.amount.mean() if len(own) else 0, 1e-3)
            known = (table.time >= row.time - days - 7) & (table.time < row.time - 7)
            there = table[known & (table.terminal == row.terminal)]
            assert row[f"terminal_{days}d"] == len(there)
            assert row[f"frauds_{days}d"] == there.fraud.sum()


def test_the_parts_are_of_different_weeks_and_the_kinds_of_fraud_are_there(table: Any) -> None:
    parts = simulate.parts(table)
    ends = [(parts[name].day.min(), parts[name].day.max()) for name in ("train", "validation")]
    ends.append((parts["test"].day.min(), parts["test"].day.max()))
    for (_, last), (first, _) in pairwise(ends):
        assert first - last >= simulate.DELAY
    assert set(table.kind) == {0, 1, 2, 3}
    assert 0.002 < table.fraud.mean() < 0.05
    assert ((table.kind > 0) == (table.fraud == 1)).all()
    assert (parts["benign"].fraud == 0).all()
    assert set(parts["own"].customer) <= set(parts["leaked"].customer)
    frauds = int(parts["train"].fraud.sum())
    assert len(parts["some"]) == 11 * frauds


def test_the_factor_of_leaked_cards_is_found() -> None:
    parts = simulate.parts(simulate.simulate(400, seed=1))
    told = calibrate_factor(
        parts["own"].amount, parts["own"].customer, parts["leaked"].amount, parts["leaked"].customer
    )
    assert told.factor.low <= simulate.FACTOR <= told.factor.high
    assert told.sound
    assert told.factor.high / told.factor.low < 1.5


def test_the_configurations_are_read(tmp_path: Path) -> None:
    for name in ("withstand.yaml", "hardened.yaml", "network.yaml"):
        assert load_config(EXAMPLE / name).data.table == "table.yaml"
    [inputs] = load_guard(EXAMPLE / "guard.yaml").models["fraud"].inputs or []
    assert inputs.shape[1] == len(load_table(EXAMPLE / inputs.table).columns)  # type: ignore[arg-type]


def _ran(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_command_of_the_page_runs(tmp_path: Path) -> None:
    pytest.importorskip("xgboost")
    folder = tmp_path / "fraud"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.parquet", "*.json"))
    page = (folder / "README.md").read_text()
    assert "train.parquet: " in _ran(folder, "simulate.py")
    told = _ran(folder, "model.py")
    thresholds = [float(found) for found in re.findall(r"from ([\d.]+) on", told)]
    areas = [float(found) for found in re.findall(r"area ([\d.]+)", told)]
    for name, threshold in zip(("withstand.yaml", "hardened.yaml"), thresholds, strict=True):
        assert load_config(folder / name).model.threshold == pytest.approx(threshold, rel=0.25)
    assert areas[1] > areas[0] - 0.01
    ran = 0
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for line in re.findall(r"^\$ withstand (.*)$", block, re.MULTILINE):
            done = withstand(*line.split(), folder=folder)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            ran += 1
    assert ran >= 9
    found = {}
    for name in ("withstand-report", "hardened-report"):
        report = json.loads((folder / name / "report.json").read_text())
        money = report["business"]["money"]["rate"]["value"]
        found[name] = (report["fooling_rate"]["value"], money)
    before, after = found["withstand-report"], found["hardened-report"]
    assert before[0] > 0.5
    assert after[0] <= before[0] / 2
    assert after[1] <= before[1] / 2
    assert withstand("gate", folder=folder).returncode == 1
