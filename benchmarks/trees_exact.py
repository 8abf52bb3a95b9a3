"""Rows of boosted trees decided for good, beside a search on the same rows."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import torch
from measure import Rows, timed
from networks import DATA

from withstand import attacks
from withstand.certify.trees import decide, forest_of
from withstand.models import trees_model
from withstand.threat import Box, Threat
from withstand.threat.tabular import Capability, Feature, Relation

SECONDS = 2.0
HELD = (
    "domain_age", "domain_registration_length", "web_traffic", "page_rank", "google_index",
    "dns_record", "whois_registered_domain", "statistical_report",
)  # fmt: skip
RELATIONS = (
    "length_hostname <= length_url",
    "longest_words_raw <= length_url",
    "longest_word_path <= length_url",
    "nb_dots + nb_slash + nb_hyphens <= length_url",
    "nb_com <= length_url",
    "nb_dslash <= nb_slash",
    "shortest_words_raw <= avg_words_raw",
    "avg_words_raw <= longest_words_raw",
    "shortest_word_host <= avg_word_host",
    "avg_word_host <= longest_word_host",
    "shortest_word_path <= avg_word_path",
    "avg_word_path <= longest_word_path",
)


def exact() -> Rows:
    """Rows of phishing_url decided on XGBoost, 200 trees of depth 6: by a witness or a proof.

    100 test rows that the model gets right, 2 s each; all features may move by a share of their
    range in training, whole numbers stay whole. With the schema 8 of them are held and 12 linear
    relations, which hold in all the data, are kept. The search is TableSearch as it comes.
    Contradictions: rows that it fools and that were proven, or witnesses that the model or the
    capability's own check refuses.
    """
    from pandas import read_parquet
    from xgboost import XGBClassifier

    table = read_parquet(DATA / "tabular" / "phishing_url.parquet")
    table.columns = [name.lower() for name in table.columns]
    y = table.pop("label").to_numpy().astype(int)
    x = table.drop(columns=["url"]).to_numpy(np.float32)
    names = [name for name in table.columns if name != "url"]
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:8000], order[8000:]
    fitted = XGBClassifier(n_estimators=200, max_depth=6, nthread=1, random_state=0)
    fitted.fit(x[train], y[train])
    right = test[fitted.predict(x[test]) == y[test]]
    model = trees_model(fitted, domain=Box(x.min(0), x.max(0)))
    found: Rows = []
    for schema in (False, True):
        for eps in (0.02, 0.05):
            asked = _capability(names, x, x[train], eps, schema=schema)
            rows = right[asked.contains(x[right], x[right])][:100]
            found.append({"schema": schema, "eps": eps} | _compared(model, asked, x[rows], y[rows]))
    return found


def _capability(names: list[str], x: Any, train: Any, eps: float, *, schema: bool) -> Capability:
    width = eps * np.ptp(train.astype(np.float64), axis=0)
    whole = (x == np.rint(x)).all(0)
    features = []
    for place, name in enumerate(names):
        if width[place] == 0 or (schema and name in HELD):
            features.append(Feature(name=name, change="none"))
            continue
        features.append(
            Feature(
                name=name, lower=float(x[:, place].min()), upper=float(x[:, place].max()),
                integer=bool(whole[place]), most=float(width[place]),
            )
        )  # fmt: skip
    kept = RELATIONS if schema else ()
    return Capability(
        features=tuple(features), relations=tuple(Relation.read(text, names) for text in kept)
    )


def _compared(model: Any, asked: Capability, x: Any, y: Any) -> dict[str, Any]:
    forest = forest_of(model, x)
    lower, upper = asked.box(x)
    statuses, spent, refused = [], [], 0
    for row in range(len(x)):

        def fools(there: Any, row: int = row) -> bool:
            return int(model.labels(torch.from_numpy(there[None]))[0]) != y[row]

        began = time.process_time()
        told = decide(
            forest, x[row], int(y[row]), lower[row], upper[row], capability=asked,
            seconds=SECONDS, fools=fools,
        )  # fmt: skip
        spent.append(time.process_time() - began)
        statuses.append(told.status)
        if told.row is not None:
            refused += not (fools(told.row) and asked.contains(x[row : row + 1], told.row[None])[0])
    work = partial(
        attacks.run, attacks.TableSearch(), model, torch.from_numpy(x), torch.from_numpy(y),
        Threat(region=asked, access="scores"), batch_size=len(x),
    )  # fmt: skip
    searched = timed(work)
    fooled = searched.found.success.numpy()
    count = Counter(statuses)
    proven = np.array(statuses) == "proven"
    return {
        "rows": len(x),
        "witness": count["witness"],
        "proven": count["proven"],
        "undecided": count["undecided"],
        "CPU s a row, median": round(float(np.median(spent)), 3),
        "CPU s, 95th percentile": round(float(np.quantile(spent, 0.95)), 3),
        "CPU s, most": round(max(spent), 2),
        "fooled by the search": int(fooled.sum()),
        "CPU s a row, search": round(searched.cpu / len(x), 3),
        "contradictions": int((fooled & proven).sum()) + refused,
    }
