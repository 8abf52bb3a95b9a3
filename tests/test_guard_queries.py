"""Searches for adversarial examples are seen in the sequence of queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from withstand import attacks
from withstand._errors import DataError
from withstand.guard.queries import QueryWatch, Ring, Settings, Sketcher, calibrated
from withstand.models import FunctionModel, TorchModel
from withstand.threat import L2, Linf, Region, Threat


@pytest.fixture(scope="module")
def images() -> Any:
    return load_digits().images.astype(np.float32)[:, None] / 16


@pytest.fixture(scope="module")
def sketcher(images: Any) -> Sketcher:
    return Sketcher.fit(images[:700], seed=3)


@pytest.fixture(scope="module")
def settings(images: Any, sketcher: Sketcher) -> Settings:
    return calibrated(sketcher, images[:1300], rate=1e-3)


def first_alarm(watch: QueryWatch, queries: Any, clients: int = 1) -> int | None:
    for number, x in enumerate(queries):
        if watch.see(f"client {number % clients}", x[None])[0].alarm:
            return number + 1
    return None


def asked_by(attack: Any, region: Region, digits: Any, row: int) -> Any:
    """What an attack asks about one input, in its order."""
    log: list[Any] = []

    def answer(x: Any) -> Any:
        log.append(x)
        scores = TorchModel(digits.net).scores(torch.from_numpy(x)).numpy()
        return scores.argmax(1) if attack.needs == "labels" else scores

    model = FunctionModel(answer, returns=attack.needs)
    x, y = (torch.from_numpy(a[row : row + 1]) for a in (digits.data.x, digits.data.y))
    threat = Threat(region=region, access=attack.needs, queries=60)
    attacks.run(attack, model, x, y, threat, batch_size=1)
    return np.concatenate(log)


@pytest.mark.parametrize(
    ("attack", "region"),
    [
        (attacks.Square(queries=60), Linf(0.05)),
        (attacks.NES(queries=60), Linf(0.05)),
        (attacks.HopSkipJump(queries=60), L2(np.inf)),
        (attacks.BoundaryAttack(queries=60), L2(np.inf)),
    ],
)
def test_a_search_is_seen_within_a_few_queries(
    attack: Any, region: Region, digits: Any, sketcher: Sketcher, settings: Settings
) -> None:
    seen = []
    for row in range(6):
        queries = asked_by(attack, region, digits, row)
        if len(queries) >= 30:
            seen.append(first_alarm(QueryWatch(sketcher, settings), queries))
    assert len(seen) >= 3
    assert sum(number is not None and number <= 30 for number in seen) >= 0.9 * len(seen)


def test_a_search_by_many_clients_is_seen_all_the_same(
    digits: Any, sketcher: Sketcher, settings: Settings
) -> None:
    queries = asked_by(attacks.HopSkipJump(queries=60), L2(np.inf), digits, 0)
    number = first_alarm(QueryWatch(sketcher, settings), queries, clients=50)
    assert number is not None
    assert number <= 30


def test_benign_queries_raise_no_more_alarms_than_promised(
    images: Any, sketcher: Sketcher, settings: Settings
) -> None:
    sightings = QueryWatch(sketcher, settings).see("client", images[1300:])
    assert sum(sighting.alarm for sighting in sightings) <= 2
    # Seen in 1,300 queries, one alarm in a thousand cannot be excluded.
    assert 1e-3 < settings.bound < 6e-3


def test_sweeps_over_one_image_raise_an_alarm_too(
    images: Any, sketcher: Sketcher, settings: Settings
) -> None:
    sweep = images[0] * np.linspace(0.9, 1, 12, dtype=np.float32)[:, None, None, None]
    assert first_alarm(QueryWatch(sketcher, settings), sweep) is not None


def test_the_share_of_bits_is_the_angle() -> None:
    rng = np.random.default_rng(0)
    sketcher = Sketcher.fit(rng.standard_normal((20_000, 60)), seed=0)
    x = rng.standard_normal((200, 60)).astype(np.float32)
    other = (np.cos(0.3) * x + np.sin(0.3) * _orthogonal(x, rng)).astype(np.float32)
    bits = np.bitwise_count(sketcher(x) ^ sketcher(other))
    for half in (bits[:, :4], bits[:, 4:]):
        assert half.sum(1).mean() / 256 == pytest.approx(0.3 / np.pi, abs=0.01)


def _orthogonal(x: Any, rng: np.random.Generator) -> Any:
    other = rng.standard_normal(x.shape)
    other -= (other * x).sum(1, keepdims=True) / (x * x).sum(1, keepdims=True) * x
    lengths = np.linalg.norm(x, axis=1) / np.linalg.norm(other, axis=1)
    return other * lengths[:, None]


def test_large_inputs_are_averaged_and_another_seed_sees_other_bits() -> None:
    x = np.random.default_rng(0).random((5, 3, 50, 50), dtype=np.float32)
    one, other = (Sketcher.fit(x, seed=seed) for seed in (0, 1))
    assert one.projections.shape == (938, 512)
    assert (one(x) != other(x)).any()
    assert np.array_equal(one(x), Sketcher.fit(x, seed=0)(x))
    with pytest.raises(DataError, match=r"have shape \(3, 40, 50\)"):
        one(x[:, :, :40])


def test_a_ring_forgets_the_oldest_and_does_not_grow() -> None:
    rng = np.random.default_rng(0)
    sketches = rng.integers(0, 2**63, (500, 8)).astype(np.uint64)
    ring = Ring(200)
    for number, sketch in enumerate(sketches):
        assert ring.near(sketch, (0, 0)) == 0
        ring.put(sketch)
        oldest = sketches[max(0, number - 199)]
        assert ring.near(oldest, (0, 0)) == 1
        if number >= 200:
            assert ring.near(sketches[number - 200], (0, 0)) == 0
    assert ring._kept.nbytes == 200 * 64


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("differing", [0, 3, 4, 60])
def test_near_is_counted_exactly(half: int, differing: int) -> None:
    rng = np.random.default_rng(differing)
    sketch = rng.integers(0, 2**63, 8).astype(np.uint64)
    other = rng.integers(0, 2**63, 8).astype(np.uint64)
    other[4 * half : 4 * half + 4] = sketch[4 * half : 4 * half + 4]
    for bit in rng.choice(256, differing, replace=False):
        other[4 * half + bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    ring = Ring(8)
    ring.put(other)
    assert ring.near(sketch, (3, 3)) == (differing <= 3)


def test_the_memory_for_clients_has_an_end(sketcher: Sketcher, images: Any) -> None:
    watch = QueryWatch(sketcher, Settings(radii=(5, 5), clients=10, own=16, anybody=16))
    for number in range(100):
        watch.see(f"client {number}", images[number : number + 1])
    assert len(watch._clients) == 10


def test_what_cannot_be_calibrated_is_told(sketcher: Sketcher, images: Any) -> None:
    with pytest.raises(DataError, match="999 benign queries are too few"):
        calibrated(sketcher, images[:999])
    with pytest.raises(DataError, match="are copies of others"):
        calibrated(sketcher, np.repeat(images[:200], 6, 0))
    with pytest.raises(DataError, match="1 benign inputs"):
        Sketcher.fit(images[:1], seed=0)
