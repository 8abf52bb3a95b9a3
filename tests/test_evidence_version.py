"""A version's manifest that is none, or that contradicts its files, is named and never trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from withstand import WithstandError
from withstand.evidence import Corpus, Entry, Origin, Remark, card

PLACE = "000001/manifest.json"


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """One entry, and one remark on it."""
    made = Corpus(tmp_path / "corpus")
    entry = Entry(original=None, label=1, answer=2, attack="a", origin=Origin())
    made.add([np.zeros(3)], [entry], [Remark(by="ann", entry="0" * 64, verdict="benign")])
    return made


def changed(corpus: Corpus, change: Callable[[dict[str, Any]], None]) -> None:
    path = corpus.path / PLACE
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": float("inf")}, {"entries": "1"}, {"total": None}, {"remarks": "1"},
        {"remarks": 0}, {"remarks_sha256": ""}, {"number": 1.0}, {"shards": [{}]},
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_one_line(corpus: Corpus, wrong: dict[str, Any]) -> None:
    changed(corpus, lambda told: told.update(wrong))
    (fault,) = corpus.verify()
    assert fault == f"{corpus.path / PLACE}: damaged; restore the corpus from a backup"
    with pytest.raises(WithstandError, match="damaged; restore"):
        card(corpus)


def test_a_manifest_that_goes_too_deep_is_one_line(corpus: Corpus) -> None:
    (corpus.path / PLACE).write_text("[" * 100_000)
    (fault,) = corpus.verify()
    assert "damaged; restore" in fault


def test_a_shard_that_counts_no_entries_is_one_line(corpus: Corpus) -> None:
    changed(corpus, lambda told: told["shards"][0].update(entries="1"))
    (fault,) = corpus.verify()
    assert "damaged; restore" in fault


def test_remarks_that_are_not_as_many_as_are_told_are_a_fault(corpus: Corpus) -> None:
    assert corpus.verify() == ()
    changed(corpus, lambda told: told.update(remarks=2))
    (fault,) = corpus.verify()
    assert "has 1 remarks of 2; restore the corpus" in fault
