"""Fine-tuning on a corpus: what it mends, and what its check tells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from training import Killed, kept, small, weights

from withstand import WithstandError
from withstand.data import Dataset, from_arrays, load_sklearn
from withstand.evidence import content_digest
from withstand.harden import (
    FGSM,
    Change,
    Standard,
    adam,
    finetune,
    harden,
    sgd,
)
from withstand.harden._finetune import KEPT_OUT, unseen
from withstand.stats import clopper_pearson, paired_difference
from withstand.threat import Linf


@pytest.fixture(scope="module")
def few() -> Dataset:
    return load_sklearn("digits", limit=260)


def test_what_is_kept_from_training_is_a_share_of_all_digests() -> None:
    digests = [content_digest(np.float32([i])) for i in range(2000)]
    apart = [unseen(digest, 0.25) for digest in digests]
    assert 420 < sum(apart) < 580
    assert all(unseen(digest, 0.5) for digest, far in zip(digests, apart, strict=True) if far)


@pytest.mark.parametrize(
    ("more", "fewer", "n", "least", "outcome"),
    [
        (0, 0, 500, -0.02, "pass"),
        (3, 4, 500, -0.05, "pass"),
        (0, 60, 500, -0.02, "fail"),
        (3, 6, 100, -0.02, "inconclusive"),
        (40, 0, 100, 0.0, "pass"),
        (0, 0, 0, 0.0, "inconclusive"),
    ],
)
def test_a_change_passes_only_with_its_whole_interval(
    more: int, fewer: int, n: int, least: float, outcome: str
) -> None:
    change = paired_difference(more, fewer, n, 0.95) if n else clopper_pearson(0, 0)
    before, after = (clopper_pearson(k, n) for k in (fewer + n // 3, more + n // 3))
    found = Change(metric="m", before=before, after=after, change=change, least=least)
    assert found.outcome == outcome
    assert replace(found, before=clopper_pearson(9, 9), after=clopper_pearson(9, 9)).outcome in (
        "pass",
        "inconclusive",
    )


def test_fine_tuning_mends_what_fooled_and_tells_what_it_cost(tmp_path: Path) -> None:
    digits = load_sklearn("digits")
    train, test = digits.take(np.arange(1000)), digits.take(np.arange(1000, 1400))
    net = harden(small(), train, Standard(), epochs=5, batch_size=64, optimizer=adam(1e-2)).net
    corpus, before = kept(tmp_path / "corpus", net, test, 0.12), weights(net)
    settings: dict[str, Any] = {"checked": test, "epochs": 3, "optimizer": adam(3e-3)}
    tuned = finetune(net, train, corpus, FGSM(region=Linf(0.12)), batch_size=64, **settings)
    clean, robust, known = tuned.changes
    assert tuned.learnt.after.value > tuned.learnt.before.value + 0.2
    assert known.before.value < 0.05
    assert known.change.low > 0
    assert known.outcome == "pass"
    assert robust.change.value > 0
    assert robust.outcome == "pass"
    assert clean.before.n == sum(unseen(content_digest(row), KEPT_OUT) for row in test.x)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    json.dumps(tuned.to_dict(), allow_nan=False)

    # Nothing but what it is shown: clean accuracy is lost, and the check says so.
    labels = {"x": train.x[:64], "y": (train.y[:64] + 1) % 10}
    worse = finetune(
        net, from_arrays(**labels), corpus, Standard(), checked=test, epochs=9, optimizer=sgd(0.3)
    )
    assert worse.changes[0].outcome == "fail"
    assert worse.outcome == "fail"


def test_no_original_is_both_trained_on_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: Dataset
) -> None:
    seen: dict[str, Any] = {}

    def spy(net: Any, data: Dataset, recipe: Any, **settings: Any) -> Any:
        seen.update(data=data, recipe=recipe)
        raise Killed

    corpus = kept(tmp_path / "corpus", small(), few, 0.3)
    monkeypatch.setattr("withstand.harden._finetune.harden", spy)
    with pytest.raises(Killed):
        finetune(small(), few, corpus, Standard())
    trained = [content_digest(row) for row in seen["data"].x]
    assert len(trained) > 150
    assert not any(unseen(digest, KEPT_OUT) for digest in trained)
    assert not any(unseen(original, KEPT_OUT) for original in seen["recipe"].kept.originals)


def test_an_empty_corpus_is_an_error(tmp_path: Path, few: Dataset) -> None:
    with pytest.raises(WithstandError, match="holds no adversarial example of shape"):
        finetune(small(), few, tmp_path, Standard())
    with pytest.raises(WithstandError, match=r"none is not there; give the folder of one"):
        finetune(small(), few, tmp_path / "none", Standard())
    loader = DataLoader(TensorDataset(torch.rand(4, 1, 8, 8), torch.zeros(4).long()))
    with pytest.raises(WithstandError, match="data is a DataLoader; give a data set"):
        finetune(small(), loader, tmp_path, Standard())  # type: ignore[arg-type]
