"""The table phishing_url with what an attacker can do to it, and the trees under attack."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from networks import DATA

from withstand.threat import Box
from withstand.threat.tabular import Capability, Feature, Relation

# Known of a host from elsewhere: whoever writes a page cannot change them.
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


class Urls(NamedTuple):
    """Features (N, F) by name and labels (N,), 0 of phishing, in an order drawn once."""

    names: list[str]
    x: Any
    y: Any

    @property
    def domain(self) -> Box:
        """The ranges of all rows."""
        return Box(self.x.min(0), self.x.max(0))


@cache
def urls() -> Urls:
    """All rows, shuffled with seed 0."""
    from pandas import read_parquet

    frame = read_parquet(DATA / "tabular" / "phishing_url.parquet")
    frame = frame.rename(columns=str.lower).drop(columns=["url"])
    y = frame.pop("label").to_numpy().astype(int)
    order = np.random.default_rng(0).permutation(len(frame))
    return Urls(list(frame.columns), frame.to_numpy(np.float32)[order], y[order])


def capability(told: Urls, eps: float, train: Any, *, schema: bool = True) -> Capability:
    """Features that may move by a share of their range in training; whole numbers stay whole.

    schema: some are held, and the relations are kept, which hold in all rows.
    """
    width = eps * np.ptp(train.astype(np.float64), axis=0)
    whole = (told.x == np.rint(told.x)).all(0)
    features = []
    for place, name in enumerate(told.names):
        if width[place] == 0 or (schema and name in HELD):
            features.append(Feature(name=name, change="none"))
            continue
        features.append(
            Feature(
                name=name, lower=float(told.x[:, place].min()),
                upper=float(told.x[:, place].max()), integer=bool(whole[place]),
                most=float(width[place]),
            )
        )  # fmt: skip
    kept = RELATIONS if schema else ()
    return Capability(
        features=tuple(features), relations=tuple(Relation.read(text, told.names) for text in kept)
    )


def boosted(x: Any, y: Any) -> Any:
    """XGBoost with 200 trees of depth 6."""
    from xgboost import XGBClassifier

    trees = XGBClassifier(n_estimators=200, max_depth=6, n_jobs=1, random_state=0)
    return trees.fit(x, y)
