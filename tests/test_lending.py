"""Credit: real loans from the proposal of a table to the gate, where the data are present."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from processes import withstand

DATA = Path(os.environ.get("WITHSTAND_DATA", Path(__file__).parents[2] / "shared" / "data"))
LOANS = DATA / "tabular" / "lending_club_25k.parquet"

# What an applicant can claim: up to a fifth more income, another purpose, a smaller or longer loan.
TABLE = """
features:
  loan_amount: {integer: true, step: 25, lower: 500, upper: 40000, change: decrease, cost: 0.05}
  months: {values: [36, 60], fixed: 100}
  interest_rate: {step: 0.01, lower: 5, upper: 31, change: none}
  monthly_payment: {step: 0.01, lower: 10, upper: 2000}
  loan_purpose: {values: [car, credit_card, debt_consolidation, home_improvement, house,
    major_purchase, medical, moving, other, renewable_energy, small_business, vacation, wedding]}
  housing: {values: ["no", "yes"], change: none}
  annual_income: {lower: 0, upper: 2000000, share: 0.2, change: increase, cost: 0.01}
  debt_to_income: {step: 0.01, lower: 0, upper: 999, change: none}
relations:
  - >-
    monthly_payment == loan_amount * r / (1 - (1 + r) ** -months) ~ 0.02
    where r = interest_rate / 1200
most_cost: 500
stake: loan_amount
currency: USD
"""

MODEL = """
from pathlib import Path

import pandas as pd
from xgboost import XGBClassifier

from withstand.data import columns_of, load_table


def build():
    folder = Path(__file__).parent
    table = load_table(folder / "table.yaml")
    rows = table.encode(columns_of(folder / "train.parquet", table))
    labels = pd.read_parquet(folder / "train.parquet")["default"]
    return XGBClassifier(n_estimators=60, max_depth=4, n_jobs=1, random_state=0).fit(rows, labels)
"""

CONFIG = """
model: {kind: sklearn, factory: "model.py:build", threshold: 0.15}
data: {kind: parquet, path: test.parquet, y: default, table: table.yaml, only: [1]}
threat: {goal: untargeted, access: scores}
evaluate: {preset: standard, seed: 0}
gate:
  robust_accuracy: {min: 0.99}
"""


def _annuity(loans: Any) -> Any:
    rate = loans.interest_rate / 1200
    return loans.loan_amount * rate / (1 - (1 + rate) ** -loans.months)


def _loans() -> Any:
    """Loans whose payment is the annuity of amount, rate and term, as all but a few are."""
    pandas = pytest.importorskip("pandas")
    loans = pandas.read_parquet(LOANS).rename(columns={"Default": "default"})
    loans["months"] = loans.pop("loan_term").str.strip().str[:2].astype(int)
    near = (_annuity(loans) - loans.monthly_payment).abs() < 0.015
    kept = near & (loans.loan_purpose != "educational")
    return loans[kept].drop(columns="employment_length").sample(frac=1, random_state=0)


@pytest.mark.slow
@pytest.mark.skipif(not LOANS.exists(), reason=f"no {LOANS}; WITHSTAND_DATA names the folder")
def test_applicants_for_loans_get_through_with_what_they_can_claim_and_no_more(
    tmp_path: Path,
) -> None:
    pytest.importorskip("xgboost")
    pandas = pytest.importorskip("pandas")
    loans = _loans()
    loans[:15_000].to_parquet(tmp_path / "train.parquet")
    loans[15_000:19_000].to_parquet(tmp_path / "test.parquet")

    done = withstand("init", "--from", "train.parquet", "--target", "default", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    proposed = (tmp_path / "table.yaml").read_text()
    assert "loan_amount: {integer: true, step: 25" in proposed
    assert "housing: {values:" in proposed
    assert withstand("table", "check", folder=tmp_path).returncode == 0

    (tmp_path / "table.yaml").write_text(TABLE)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "withstand.yaml").write_text(CONFIG)
    assert (
        withstand("table", "check", "table.yaml", "test.parquet", folder=tmp_path).returncode == 0
    )
    done = withstand("evaluate", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "withstand-report" / "report.json").read_text())
    assert report["fooling_rate"]["low"] > 0.3
    assert 0 < report["business"]["money"]["rate"]["value"] <= 1

    made = pandas.read_csv(tmp_path / "withstand-report" / "adversarial.csv")
    asked = loans[15_000:19_000].query("default == 1").reset_index(drop=True).loc[made.row]
    asked.index = made.index
    assert len(made) > 50
    for same in ("interest_rate", "housing", "debt_to_income"):
        assert (made[same] == asked[same]).all()
    assert (made.loan_amount <= asked.loan_amount).all()
    assert (made.loan_amount % 25 == 0).all()
    assert made.annual_income.between(asked.annual_income, 1.2 * asked.annual_income + 0.01).all()
    assert ((_annuity(made) - made.monthly_payment).abs() < 0.0201).all()
    assert (made.cost <= 500).all()
    assert withstand("gate", folder=tmp_path).returncode == 1
