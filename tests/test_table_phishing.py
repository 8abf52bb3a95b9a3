"""Search against proofs, on a table of phishing pages and trees of full size."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from networks import DATA

from withstand import attacks
from withstand.certify.trees import decide, read_forest
from withstand.models import trees_model
from withstand.threat import Box, Threat
from withstand.threat.tabular import Capability, Feature, Relation

FILE = DATA / "tabular" / "phishing_url.parquet"
EPS, ROWS = 0.05, 50
HELD = ("domain_age", "domain_registration_length", "web_traffic", "page_rank", "google_index")
RISING = (
    ("length_hostname", "length_url"),
    ("shortest_words_raw", "avg_words_raw", "longest_words_raw"),
    ("shortest_word_host", "avg_word_host", "longest_word_host"),
    ("shortest_word_path", "avg_word_path", "longest_word_path"),
)


@pytest.mark.slow
@pytest.mark.skipif(not FILE.exists(), reason=f"needs {FILE}")
def test_a_search_finds_what_exists_and_nothing_where_robustness_is_proven() -> None:
    library = pytest.importorskip("xgboost")
    import pandas as pd

    table = pd.read_parquet(FILE)
    y = table.iloc[:, -1].to_numpy(np.int64)
    numbers = table.iloc[:, :-1].select_dtypes("number")
    names, x = list(numbers.columns), numbers.to_numpy(np.float32)
    low, high = x.min(0).astype(float), x.max(0).astype(float)

    def feature(place: int, name: str) -> Feature:
        held = name in HELD or low[place] == high[place]
        return Feature(
            name=name,
            change="none" if held else "both",
            lower=low[place],
            upper=high[place],
            integer=numbers[name].dtype.kind == "i",
            most=max(EPS * (high[place] - low[place]), 1e-9),
        )

    rules = [f"{a} <= {b}" for chain in RISING for a, b in pairwise(chain)]
    asked = Capability(
        features=tuple(feature(place, name) for place, name in enumerate(names)),
        relations=tuple(Relation.read(rule, names) for rule in rules),
    )
    order = np.random.default_rng(3).permutation(len(x))
    training, rest = np.split(order, [8000])
    trees = library.XGBClassifier(n_estimators=200, max_depth=6, n_jobs=1, random_state=0)
    trees.fit(x[training], y[training])
    chosen = rest[(trees.predict(x[rest]) == y[rest]) & (y[rest] == 0)][:ROWS]
    model, forest = trees_model(trees, domain=Box(low, high)), read_forest(trees)
    lower, upper = asked.box(x[chosen])
    lower, upper = np.maximum(lower, low), np.minimum(upper, high)

    def fools(row: Any) -> bool:
        return bool(trees.predict(row[None])[0] != 0)

    status = np.array([
        decide(forest, x[row], 0, a, b, capability=asked, seconds=20, fools=fools).status
        for row, a, b in zip(chosen, lower, upper, strict=True)
    ])  # fmt: skip
    inputs, labels = torch.from_numpy(x[chosen]), torch.zeros(ROWS, dtype=torch.long)
    threat = Threat(region=asked, access="scores")
    others = attacks.Donors(x[training[:2000]], trees.predict(x[training[:2000]]))
    for search in (
        attacks.TableSearch(generations=100, restarts=2, donors=others),
        attacks.TableSearch(
            generations=100, restarts=2, donors=others, cuts=attacks.Cuts(forest.cuts)
        ),
    ):
        found = attacks.run(search, model, inputs, labels, threat, batch_size=500)
        success = found.success.numpy()
        assert asked.contains(x[chosen], found.x_adv.numpy()).all()
        assert (trees.predict(found.x_adv.numpy())[success] != 0).all()
        assert not success[status == "proven"].any()
        assert success.mean() >= (status == "witness").mean() - 0.02
        for size in (1, 7):
            few = attacks.run(search, model, inputs[:8], labels[:8], threat, batch_size=size)
            assert torch.equal(few.x_adv, found.x_adv[:8])
    assert (status != "undecided").mean() >= 0.95
