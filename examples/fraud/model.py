"""The bank's model of fraud, and the same one hardened: run it to fit both.

Both are gradient-boosted trees that flag one in a hundred benign transactions. The bank's looks at
shares of frauds among a terminal's transactions, which a thief dilutes with small purchases. The
hardened one looks at the frauds themselves, and was fitted to what fooled those before it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from simulate import COLUMNS
from sklearn.metrics import roc_auc_score
from xgboost import XGBClassifier

from withstand.data import Dataset, load_parquet, load_table
from withstand.harden import augment, directions
from withstand.models import Thresholded, trees_model
from withstand.threat import Targeted, Threat

HERE = Path(__file__).parent
TABLE = load_table(HERE / "table.yaml")
FLAGGED = 0.01
PARTS = ["terminal_2_7d", "terminal_8_30d"]
BANK_LEAVES_OUT = ["frauds_1d", "frauds_7d", "frauds_30d", *PARTS]
HARDENED_LEAVES_OUT = ["risk_1d", "risk_7d", "risk_30d", *PARTS]
# A larger amount is no better sign, nor is a fraud more at the terminal.
RISING = ["amount", "ratio", "frauds_1d", "frauds_7d", "frauds_30d"]
BUDGET = 100.0


def load(name: str) -> Dataset:
    """A part of the data by the table's columns."""
    return load_parquet(HERE / f"{name}.parquet", "fraud", COLUMNS)


def fitted(
    x: np.ndarray, y: np.ndarray, leaves_out: list[str], **settings: object
) -> XGBClassifier:
    """Trees that never ask about what they are to leave out: it does not vary."""
    held = x.copy()
    held[:, [COLUMNS.index(name) for name in leaves_out]] = 0
    trees = XGBClassifier(n_estimators=100, max_depth=5, learning_rate=0.1, n_jobs=1, **settings)
    return trees.fit(held, y)


def threshold_of(trees: XGBClassifier, validation: Dataset) -> float:
    """The probability from which on one in a hundred benign rows is flagged."""
    benign = trees.predict_proba(validation.x[validation.y == 0])[:, 1]
    return float(np.quantile(benign, 1 - FLAGGED))


def constraints() -> tuple[int, ...]:
    """What the thief can only raise must not lower the score; nor do the signs that are known."""
    free = directions(TABLE.capability, leave=["amount"])
    known = [1 if name in RISING else 0 for name in COLUMNS]
    return tuple(one or other for one, other in zip(free, known, strict=True))


def bank(train: Dataset) -> XGBClassifier:
    """The model as it was."""
    return fitted(train.x, train.y, BANK_LEAVES_OUT)


def hardened(train: Dataset, validation: Dataset, rounds: int = 3) -> XGBClassifier:
    """The model after its defence."""
    last: list[XGBClassifier] = []

    def fit(x: np.ndarray, y: np.ndarray) -> Thresholded:
        trees = fitted(x, y, HARDENED_LEAVES_OUT, monotone_constraints=constraints())
        last[:] = [trees]
        return Thresholded(trees_model(trees, domain=TABLE.domain), threshold_of(trees, validation))

    region = TABLE.limited(most_changed=None, most_cost=BUDGET).capability
    threat = Threat(region=region, goal=Targeted(0), access="scores")
    augment(fit, train, threat, rounds=rounds)
    return last[0]


def main() -> None:
    train, validation, test = load("train"), load("validation"), load("test")
    for name, trees in (("bank", bank(train)), ("hardened", hardened(train, validation))):
        trees.save_model(HERE / f"{name}.json")
        threshold = threshold_of(trees, validation)
        area = roc_auc_score(test.y, trees.predict_proba(test.x)[:, 1])
        told = f"{name}.json: flags 1 % of the benign from {threshold:.2g} on, area {area:.4f}\n"
        sys.stdout.write(told)


if __name__ == "__main__":
    main()
