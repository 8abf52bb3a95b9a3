"""Rows of a table brought back to what an attacker can make, and a search among those."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import capability, linear, plain, rows

from withstand import attacks
from withstand.attacks._repair import Repair
from withstand.models import FunctionModel
from withstand.threat import L0, Threat
from withstand.threat.tabular import Capability, Feature, Relation


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 1, 2, 3]), st.sampled_from([None, 0.5, 20.0]))
def test_what_was_repaired_is_what_an_independent_check_allows(
    seed: int, most_changed: int | None, most_cost: float | None
) -> None:
    asked = capability(most_changed=most_changed, most_cost=most_cost)
    x = rows(6, seed)
    found, judged = _repaired(asked, x, seed)
    said = [[plain(x[n], one, most_changed, most_cost) for one in found[n]] for n in range(6)]
    assert judged.tolist() == said
    # What a relation needs may be out of reach, so not all can be mended.
    assert judged.mean() > 0.8
    lower, upper = asked.box(x)
    np.testing.assert_array_equal(Repair(asked)(x, x[:, None], lower, upper)[:, 0], x)


def test_nearly_all_wild_rows_can_be_repaired() -> None:
    asked = capability()
    assert np.mean([_repaired(asked, rows(6, seed), seed)[1] for seed in range(25)]) > 0.98


def _repaired(asked: Capability, x: Any, seed: int) -> tuple[Any, Any]:
    draw = np.random.default_rng(seed)
    wild = x[:, None] * draw.uniform(-1, 3, (6, 20, 7)) + draw.normal(0, 50, (6, 20, 7))
    repair = Repair(asked)
    found = repair(x, wild.astype(np.float32), *asked.box(x))
    return found, repair.feasible(x, found)


def run(model: FunctionModel, x: Any, asked: Capability, **told: Any) -> attacks.Result:
    y = model.labels(torch.from_numpy(x))
    threat = Threat(region=L0(np.inf) & asked, access="scores")
    search = attacks.TableSearch(generations=25, children=12)
    return attacks.run(search, model, torch.from_numpy(x), y, threat, **told)


def test_it_finds_whatever_all_rows_of_a_small_table_have() -> None:
    names = ["a", "b", "c"]
    features = tuple(Feature(name=name, integer=True, lower=0, upper=4) for name in names)
    rule = (Relation.read("a + b == c", names),)
    asked = Capability(features=features, relations=rule)
    everything = np.array(list(product(range(5), repeat=3)), np.float32)
    possible = everything[everything[:, 0] + everything[:, 1] == everything[:, 2]]
    x = possible[::3]
    found, exists = [], []
    for seed in range(6):
        weights = np.random.default_rng(seed).normal(0, 1, 4)
        weights[3] = -np.quantile(possible @ weights[:3], 1 - seed / 12)
        model = linear(weights)
        result = run(model, x, asked)
        label = model.labels(torch.from_numpy(x)).numpy()
        every = model.labels(torch.from_numpy(possible)).numpy()
        exists += [bool((every != one).any()) for one in label]
        found += result.success.tolist()
    assert exists.count(True) > 20
    assert exists.count(False) >= 5
    assert found == exists


def test_every_row_is_allowed_and_none_depends_on_its_batch() -> None:
    asked = capability(most_changed=1, most_cost=3.0)
    x = rows(14)
    weights = np.array([-0.01, -0.05, 0.3, -0.02, 0.5, -0.5, -0.01, 5.0])
    weights[-1] = -np.median(x @ weights[:-1])
    results = [run(linear(weights), x, asked, batch_size=size) for size in (1, 4, 500)]
    fooled = results[0].success.numpy()
    assert 3 <= fooled.sum() < 14
    for before, after in zip(x[fooled], results[0].x_adv.numpy()[fooled], strict=True):
        assert plain(before, after, 1, 3.0)
    for other in results[1:]:
        assert torch.equal(other.x_adv, results[0].x_adv)
        assert torch.equal(other.success, results[0].success)
    assert not asked.wrong(x)


def test_a_row_that_nothing_can_be_made_of_is_asked_about_in_vain() -> None:
    held = Capability(features=tuple(Feature(name=name, change="none") for name in "abc"))
    x = np.ones((3, 3), np.float32)
    result = run(linear(np.array([1.0, 1.0, 1.0, -1.0])), x, held)
    assert not result.success.any()
    assert torch.equal(result.x_adv, torch.from_numpy(x))


def test_an_attack_that_knows_no_table_reports_no_impossible_row() -> None:
    names = ["a", "b"]
    features = tuple(Feature(name=name, lower=-10, upper=10) for name in names)
    asked = Capability(features=features, relations=(Relation.read("a <= b", names),))
    x = np.array([[0.0, 3.0], [1.0, 2.0]], np.float32)
    model = linear(np.array([1.0, -1.0, 4.5]))
    y = model.labels(torch.from_numpy(x))
    for region, some in ((L0(2) & asked, True), (L0(2), False)):
        threat = Threat(region=region, access="scores")
        noise = attacks.RandomNoise(draws=200)
        result = attacks.run(noise, model, torch.from_numpy(x), y, threat)
        assert result.success.all()
        assert asked.contains(x, result.x_adv.numpy()).all() == some


def test_a_value_that_no_cent_is_exactly_stays_and_the_last_cent_is_reached() -> None:
    for value, change, lower, upper in (
        (12.34, "increase", 0.0, 20.0), (12.36, "decrease", 0.0, 20.0), (12.36, "both", 0.0, 13.36),
    ):  # fmt: skip
        can = Capability(
            features=(
                Feature(
                    name="a", change=change, lower=lower, upper=float(np.float32(upper)), step=0.01
                ),
            )
        )
        x = np.array([[value]], np.float32)
        low, high = (end.astype(np.float32) for end in can.box(x))
        kept = Repair(can)(x, np.stack([x, high[None, 0] * np.ones_like(x)], 1), low, high)
        assert kept[0, 0] == x[0], (value, kept)
        if change == "both":
            assert kept[0, 1] == np.float32(13.36)


def test_one_step_alone_is_a_way_too() -> None:
    """In single precision 7 cents are more than 7 times 0.01, and 8 are less."""
    ends = (float(np.float32(value)) for value in (0.07, 0.08))
    cents = Feature(name="a", **dict(zip(("lower", "upper"), ends, strict=True)), step=0.01)
    can = Capability(features=(cents, Feature(name="b", lower=0, upper=0.9, integer=True)))
    result = run(linear(np.array([1000.0, 1.0, -75.0])), np.array([[0.07, 0]], np.float32), can)
    assert result.success.all()
    assert result.x_adv.tolist() == [[np.float32(0.08), 0]]
