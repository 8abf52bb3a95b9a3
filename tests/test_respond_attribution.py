"""The family of an attack, told by its inputs alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from withstand.attacks import (
    CGBA,
    NES,
    SPSA,
    BoundaryAttack,
    HopSkipJump,
    RayS,
    SignOPT,
    SimBA,
    SparseRS,
    Square,
    SurFree,
    run,
)
from withstand.models import FunctionModel
from withstand.respond._attribution import Traits, judged, traits
from withstand.threat import L0, L2, Box, Linf, Threat

ATTACKS: dict[str, tuple[str, Any, Any]] = {
    "Square, linf": ("random search", Square(), Linf(0.08)),
    "Square, l2": ("random search", Square(), L2(0.6)),
    "SimBA": ("random search", SimBA(), L2(0.7)),
    "SparseRS": ("random search", SparseRS(), L0(2)),
    "NES": ("gradient estimation", NES(), Linf(0.08)),
    "SPSA": ("gradient estimation", SPSA(), Linf(0.08)),
    "HopSkipJump": ("boundary walk", HopSkipJump(), L2(np.inf)),
    "BoundaryAttack": ("boundary walk", BoundaryAttack(), L2(np.inf)),
    "SignOPT": ("boundary walk", SignOPT(), L2(np.inf)),
    "RayS": ("boundary walk", RayS(), Linf(np.inf)),
    "SurFree": ("boundary walk", SurFree(), L2(np.inf)),
    "CGBA": ("boundary walk", CGBA(), L2(np.inf)),
}
QUIET: Counter[str] = Counter()


@cache
def digits() -> tuple[Any, Any, Any]:
    from sklearn.datasets import load_digits

    data = load_digits()
    x = (data.images[:, None] / 16).astype(np.float32)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        known = torch.from_numpy(data.target[:1200])
        nn.functional.cross_entropy(net(torch.from_numpy(x[:1200])), known).backward()
        optimizer.step()
    return x, data.target, net.eval()


def queries(name: str, sample: int) -> Any:
    """What an endpoint sees of an attack on one sample."""
    x, y, net = digits()
    family, attack, region = ATTACKS[name]
    labels = family == "boundary walk"
    seen: list[Any] = []

    def answer(rows: Any) -> Any:
        seen.extend(np.array(rows, np.float32))
        with torch.no_grad():
            scores = net(torch.as_tensor(np.asarray(rows, np.float32)))
        return scores.argmax(1).numpy() if labels else scores.softmax(1).numpy()

    model = FunctionModel(
        answer, returns="labels" if labels else "scores", domain=Box(0.0, 1.0)
    )  # fmt: skip
    threat = Threat(region=region, access="labels" if labels else "scores", queries=300)
    one = slice(sample, sample + 1)
    run(attack, model, torch.from_numpy(x[one]), torch.from_numpy(y[one]), threat, seed=sample)
    return np.stack(seen)


@pytest.mark.parametrize(
    "name", [pytest.param("Square, l2", marks=pytest.mark.slow), "NES", "HopSkipJump"]
)
def test_an_attack_is_told_by_its_queries_from_the_first_on_and_from_later(name: str) -> None:
    found = queries(name, 1300)
    for begin in (0, 60):
        assert judged(traits(found[begin:]), QUIET).family == ATTACKS[name][0], begin


def test_what_is_no_attack_is_not_called_one_with_confidence() -> None:
    x, _, _ = digits()
    noise = np.random.default_rng(0).standard_normal((100, *x[0].shape)).astype(np.float32)
    benign = {
        "other digits": x[:100],
        "noise on one": np.clip(x[:1] + 0.05 * noise, 0, 1),
        "brighter and brighter": np.clip(x[:1] * np.linspace(0.5, 1.5, 100)[:, None, None, None],
                                         0, 1).astype(np.float32),
        "the same again": np.repeat(x[:1], 100, 0),
    }  # fmt: skip
    for name, rows in benign.items():
        assert judged(traits(rows), QUIET).family == "unknown", name


def test_hidden_patches_are_mistaken_for_a_random_search_as_the_docs_say() -> None:
    x, _, _ = digits()
    rows = np.repeat(x[:1], 36, 0)
    for number, row in enumerate(rows):
        top, left = divmod(number, 6)
        row[0, top : top + 3, left : left + 3] = 0.3
    assert judged(traits(rows), QUIET).family == "random search"


def test_far_queries_are_named_by_who_flagged_them() -> None:
    far = Traits(n=100, near=0.1, paired=0.0, halved=0.0, sparse=0.0)
    assert judged(far, QUIET).family == "unknown"
    assert judged(far, Counter({"extraction": 90})).family == "sweep"
    one = judged(far, Counter({"squeezing": 90}))
    assert (one.family, one.confidence) == ("one shot", None)
    few = judged(Traits(n=19, near=1.0, paired=1.0, halved=1.0, sparse=1.0), QUIET)
    assert (few.family, few.why) == ("unknown", ("19 inputs are too few to tell; 20 are needed",))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_confusion_table_holds_on_samples_it_was_not_made_with() -> None:
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for name, (family, _, _) in ATTACKS.items():
        for sample in range(1500, 1506):
            found = queries(name, sample)
            for begin in (0, 60):
                if len(found) - begin >= 20:
                    verdict = judged(traits(found[begin:]), QUIET).family
                    table[name][verdict] += 1
                    # A wrong name is worse than none; SimBA, which asks in pairs, gets one.
                    assert verdict in (family, "unknown") or name == "SimBA", (name, sample, begin)
    told = [name for name, found in table.items() if found[ATTACKS[name][0]] > found["unknown"]]
    assert len(told) >= 8, {name: dict(found) for name, found in table.items()}
