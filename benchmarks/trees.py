"""Labels of boosted trees against ART's HopSkipJump: batched, and no farther away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import peers
import torch
from measure import Rows, Timed, timed
from networks import DATA

from withstand import attacks
from withstand.models import FunctionModel
from withstand.threat import L2, Threat

# ART's has no budget: five iterations, the first of 110 evaluations, come to about 1,000 queries.
ART = (5, 110)
# ART halves a step until the point fools, which it never does where float32 took the boundary point
# back. After some 1,100 halvings the step is 0: with all others no row comes to as many queries.
ENDLESS = 7_000
OURS = (
    attacks.HopSkipJump(queries=1000),
    attacks.CGBA(queries=1000),
    attacks.CGBA(queries=500),
    attacks.CGBA(queries=250),
    attacks.CGBA(queries=200),
    attacks.CGBA(queries=150),
    attacks.CGBA(queries=75),
)


def trees() -> Rows:
    """Labels of boosted trees, L2, features scaled to [0, 1], 150 rows; ours the median of three.

    Rows on which ART's HopSkipJump does not end within 7,000 queries are left out on both sides,
    and of the time of both.
    """
    rows: Rows = []
    for data, estimator, x, y in _victims():

        def answer(batch: Any, estimator: Any = estimator) -> Any:
            return estimator.predict(np.asarray(batch, np.float32)).astype(int)

        spent, their_queries, ended = _by_art(answer, x)
        x, y = x[ended], y[ended]
        gone = np.where(answer(spent.found) != y, np.linalg.norm(spent.found - x, axis=1), np.inf)
        model = FunctionModel(answer, returns="labels", domain=(0, 1))
        threat = Threat(region=L2(np.inf), access="labels")
        for attack in OURS:
            whole = partial(
                attacks.run, attack, model, torch.from_numpy(x), torch.from_numpy(y), threat,
                batch_size=150,
            )  # fmt: skip
            mine = sorted((timed(whole) for _ in range(3)), key=lambda run: run.wall)[1]
            rows.append(
                {
                    "data": data,
                    "model": type(estimator).__name__,
                    "attack": type(attack).__name__,
                    "rows": len(x),
                    "queries, withstand": round(float(mine.found.ledger.forwards.float().mean())),
                    "queries, ART HopSkipJump": round(their_queries),
                    "median L2, withstand": round(float(mine.found.distance.median()), 4),
                    "median L2, ART": round(float(np.median(gone)), 4),
                    "wall s, withstand": round(mine.wall, 2),
                    "wall s, ART": round(spent.wall, 2),
                    "ART's wall over ours": round(spent.wall / mine.wall, 1),
                    "ART's CPU over ours": round(spent.cpu / mine.cpu, 1),
                }
            )
            print(rows[-1], flush=True)
    return rows


class _EndlessError(Exception):
    """ART asks about one row for ever."""


def _by_art(answer: Callable[[Any], Any], x: Any) -> tuple[Timed, float, Any]:
    """ART's HopSkipJump on rows x (N, d), one by one, as it works anyway.

    What it spent on the rows that it ended, and found for them, queries a row, and which they are.
    """
    asked = 0

    def counted(batch: Any) -> Any:
        nonlocal asked
        asked += len(batch)
        if asked > ENDLESS:
            raise _EndlessError
        return answer(batch)

    attack = peers.hopskipjump_on_rows(counted, x.shape[1], *ART)
    ended: dict[int, Timed] = {}
    queries = 0
    for row in range(len(x)):
        asked = 0
        try:
            ended[row] = timed(partial(attack, x[row : row + 1]))
        except _EndlessError:
            continue
        queries += asked
    runs = ended.values()
    found = np.concatenate([run.found for run in runs])
    whole = Timed(sum(run.cpu for run in runs), sum(run.wall for run in runs), found)
    return whole, queries / len(ended), np.array(list(ended))


def _victims() -> Iterator[tuple[str, Any, Any, Any]]:
    """A data set's name, a fitted model, and 150 rows that it gets right and never saw."""
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import GradientBoostingClassifier
    from xgboost import XGBClassifier

    for data, (raw, y), training in (
        ("breast cancer", _breast_cancer(), 400),
        ("credit default", _credit_default(), 5000),
    ):
        x = ((raw - raw.min(0)) / np.ptp(raw, axis=0)).astype(np.float32)
        for estimator in (
            GradientBoostingClassifier(random_state=0),
            XGBClassifier(n_jobs=1),
            LGBMClassifier(n_jobs=1, verbose=-1),
        ):
            estimator.fit(x[:training], y[:training])
            right = estimator.predict(x[training:]) == y[training:]
            chosen = training + right.nonzero()[0][:150]
            yield data, estimator, x[chosen], y[chosen]


def _breast_cancer() -> tuple[Any, Any]:
    from sklearn.datasets import load_breast_cancer

    return load_breast_cancer(return_X_y=True)


def _credit_default() -> tuple[Any, Any]:
    """The 23 columns about each client, less the row number."""
    import pandas as pd

    table = pd.read_parquet(DATA / "tabular" / "uci_default_credit.parquet")
    x = table.iloc[:6000, 1:-1].to_numpy(np.float64)
    return x, table.iloc[:6000, -1].to_numpy(np.int64)
