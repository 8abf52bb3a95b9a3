"""Searches for adversarial examples are seen in the sequence of queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from withstand import attacks
from withstand._errors import DataError
from withstand.guard.queries import (
    Calibration,
    QueryWatch,
    Ring,
    Seen,
    Sighting,
    Space,
    Spot,
    calibrate,
    follow,
    query_sensors,
)
from withstand.guard.queries._calibration import _scores
from withstand.models import FunctionModel, TorchModel
from withstand.stats import upper_bound
from withstand.threat import L2, Linf, Region, Threat


@pytest.fixture(scope="module")
def images() -> Any:
    return load_digits().images.astype(np.float32).reshape(-1, 64) / 16


@pytest.fixture(scope="module")
def calibration(images: Any) -> Calibration:
    return calibrate(images[:1400], rate=1e-3, seed=3)


@pytest.fixture
def watch(calibration: Calibration) -> QueryWatch:
    return QueryWatch(calibration.space, calibration.sizes)


def scores(watch: QueryWatch, queries: Any, tenant: str = "t", client: str = "c") -> list[float]:
    return [one.score for one in watch.see(tenant, client, queries)]


def near_copies(x: Any, count: int, size: float = 0.01) -> Any:
    rng = np.random.default_rng(0)
    return (x + size * rng.standard_normal((count, x.size))).astype(np.float32)


def asked_by(attack: Any, region: Region, digits: Any, row: int) -> Any:
    """What an attack asks about one input, in its order."""
    log: list[Any] = []

    def answer(x: Any) -> Any:
        log.append(x.reshape(len(x), -1))
        found = TorchModel(digits.net).scores(torch.from_numpy(x)).numpy()
        return found.argmax(1) if attack.needs == "labels" else found

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
    attack: Any, region: Region, digits: Any, calibration: Calibration
) -> None:
    seen = []
    for row in range(6):
        queries = asked_by(attack, region, digits, row)
        if len(queries) >= 40:
            watch = QueryWatch(calibration.space, calibration.sizes)
            found = scores(watch, queries[:40])
            seen.append(max(found) > calibration.threshold)
    assert len(seen) >= 3
    assert np.mean(seen) >= 0.9


def test_a_search_by_many_clients_is_seen_all_the_same(
    images: Any, calibration: Calibration, watch: QueryWatch
) -> None:
    found = []
    for number, x in enumerate(near_copies(images[1500], 40)):
        found += scores(watch, x[None], client=str(number))
    assert max(found) > calibration.threshold
    elsewhere = []
    for number, x in enumerate(near_copies(images[1500], 40)):
        elsewhere += scores(watch, x[None], tenant=str(number))
    assert max(elsewhere) == 0


def test_benign_queries_raise_no_more_alarms_than_promised(
    images: Any, calibration: Calibration, watch: QueryWatch
) -> None:
    assert sum(score > calibration.threshold for score in scores(watch, images[1400:])) <= 2
    # Seen in 1,050 queries, one alarm in a thousand cannot be excluded.
    assert 1e-3 < calibration.bound < 6e-3


def test_the_bound_holds_for_queries_that_were_not_there(images: Any) -> None:
    """Benign queries of a known law: clusters of Gaussians, of several widths."""
    rng = np.random.default_rng(0)
    middle, width = rng.standard_normal((12, 20)), rng.uniform(0.05, 0.5, 12)

    def draw(count: int) -> Any:
        of = rng.integers(0, 12, count)
        noise = rng.standard_normal((count, 20)) * width[of][:, None]
        return (middle[of] + noise).astype(np.float32)

    alarms, shown, bounds = 0, 0, []
    for seed in range(3):
        found = calibrate(draw(8000), rate=1e-3, seed=seed)
        bounds.append(found.bound)
        watch = QueryWatch(found.space, found.sizes)
        scores(watch, draw(3000))  # until rings are as full as they get
        alarms += sum(score > found.threshold for score in scores(watch, draw(3000)))
        shown += 3000
    assert max(bounds) <= 1e-3
    # What a share of one in a thousand exceeds once in a thousand times.
    assert float(upper_bound(alarms, shown, 0.5)) < 2.5e-3


def test_calibration_scores_as_the_watch_does_when_its_rings_are_full(images: Any) -> None:
    space = Space.fit(images, seed=0)
    found, sizes = _scores(space, images)
    watch = QueryWatch(space, sizes)
    scores(watch, images)
    told = np.array(scores(watch, images))
    cells, _ = space.place(images)
    full = np.bincount(cells)[cells] > sizes[cells]
    assert full.sum() > 1000
    np.testing.assert_allclose(found[full], told[full], atol=1e-2)


def test_kinds_that_lie_denser_have_a_shorter_length(images: Any) -> None:
    rng = np.random.default_rng(0)
    wide, dense = rng.standard_normal((600, 8)), 20 + 0.2 * rng.standard_normal((600, 8))
    x = np.concatenate((wide, dense)).astype(np.float32)
    space = Space.fit(x, seed=0)
    cells, _ = space.place(x)
    assert space.lengths[cells[600:]].max() < 0.4 * space.lengths[cells[:600]].min()


def test_each_client_is_told_the_same_whoever_else_asks(
    images: Any, calibration: Calibration
) -> None:
    """Clients of different tenants, one after the other, or in turn in any order."""
    queries = {f"t{i}": near_copies(images[1500 + i], 12) for i in range(5)}
    alone = {
        tenant: scores(QueryWatch(calibration.space, calibration.sizes), x, tenant)
        for tenant, x in queries.items()
    }
    order = np.random.default_rng(1).permutation([tenant for tenant in queries for _ in range(12)])
    mixed = _mixed(calibration, queries, order)
    for tenant, found in alone.items():
        np.testing.assert_allclose(mixed[tenant], found, atol=1e-3)


def _mixed(calibration: Calibration, queries: Any, order: Any) -> dict[str, list[float]]:
    watch = QueryWatch(calibration.space, calibration.sizes)
    left = {tenant: iter(x) for tenant, x in queries.items()}
    found: dict[str, list[float]] = {tenant: [] for tenant in queries}
    for tenant in order:
        found[tenant] += scores(watch, next(left[tenant])[None], tenant)
    return found


def test_a_ring_that_tenants_share_would_be_seen(
    images: Any, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = QueryWatch._ring
    monkeypatch.setattr(QueryWatch, "_ring", lambda self, key: whole(self, ("", *key[1:])))
    with pytest.raises(AssertionError):
        test_no_tenant_sees_what_another_asked(images, calibration)


def test_no_tenant_sees_what_another_asked(images: Any, calibration: Calibration) -> None:
    watch = QueryWatch(calibration.space, calibration.sizes)
    copies = near_copies(images[1500], 30)
    for client in ("a", "b"):
        scores(watch, copies, "one", client)
    assert scores(watch, copies + 0.001, "other", "a")[0] == 0


def test_an_exact_repetition_is_no_near_copy(images: Any, watch: QueryWatch) -> None:
    assert set(scores(watch, np.repeat(images[:1], 50, 0))) == {0.0}
    assert scores(watch, images[:1] + 1e-4)[0] == pytest.approx(50, rel=0.01)


def test_the_memory_has_an_end(images: Any, calibration: Calibration) -> None:
    watch = QueryWatch(calibration.space, calibration.sizes, room=300, clients=10)
    for number in range(300):
        watch.see(f"t{number % 40}", f"c{number % 60}", images[number : number + 3])
        assert watch.used == sum(ring.room for ring in watch._rings.values()) <= 300
    assert len(watch._habits) == 10


def test_a_ring_forgets_the_oldest_and_does_not_grow() -> None:
    rng = np.random.default_rng(0)
    places = rng.standard_normal((300, 5)).astype(np.float32) * 10
    ring = Ring(50, 4)
    for number, place in enumerate(places):
        place[-1] = 1
        spot = Spot(place, float(place @ place) - 1, number)
        assert not len(ring.near(spot).slots)
        ring.put(spot)
        oldest = places[max(0, number - 49)]
        assert ring.near(_beside(oldest)).weights == pytest.approx([1], abs=1e-3)
        if number >= 50:
            assert not len(ring.near(_beside(places[number - 50])).slots)
    assert ring.room == 50


def _beside(place: Any) -> Spot:
    return Spot(place, float(place @ place) - 1, -1)


def test_near_copies_weigh_as_much_as_they_are_near() -> None:
    rng = np.random.default_rng(1)
    points = 0.5 * rng.standard_normal((40, 3)).astype(np.float32)
    places = np.hstack((points, np.ones((40, 1), np.float32)))
    ring = Ring(64, 3)
    for number, place in enumerate(places[1:]):
        ring.put(Spot(place, float(place @ place) - 1, number))
    found = ring.near(_beside(places[0]))
    wanted = np.maximum(0, 1 - ((points[1:] - points[0]) ** 2).sum(1))
    assert len(found.slots) > 3
    np.testing.assert_allclose(found.weights, wanted[found.slots], atol=1e-5)
    assert found.score == pytest.approx(wanted.sum(), rel=1e-5)


def test_near_copies_are_all_of_the_last_queries_but_exact_repetitions() -> None:
    rng = np.random.default_rng(0)
    points = np.hstack((rng.uniform(0, 1, (12, 3)), np.ones((12, 1)))).astype(np.float32)
    ring, before, found = Ring(20, 3), {}, 0
    for number in range(200):
        asked = int(rng.integers(12))
        spot = Spot(points[asked], float(points[asked].dot(points[asked])) - 1, 100 + asked)
        near = ring.near(spot)
        weights = {
            slot: 1 - ((points[asked] - points[other]) ** 2).sum()
            for slot, other in sorted(before.items())
            if other != asked and ((points[asked] - points[other]) ** 2).sum() < 1
        }
        assert near.slots.tolist() == list(weights)
        np.testing.assert_allclose(near.weights, list(weights.values()), atol=1e-5)
        found += len(weights)
        assert ring.put(spot) == number
        before[number % 20] = asked
    assert found > 500


def test_steps_down_and_flips_are_counted() -> None:
    ring = Ring(8, 1)

    def ask(label: int, margin: float) -> Any:
        spot = Spot(np.array([0, 1], np.float32), 0.0, hash((label, margin)))
        near = ring.near(spot)
        sighting = Sighting(near.score, (Seen(ring, ring.put(spot), near),))
        return follow(sighting, label, margin)

    found = [ask(3, margin) for margin in (0.9, 0.8, 0.85, 0.5)]
    assert [step.descent for step in found] == [0, 1, 1, 2]
    assert not any(step.flips for step in found)
    assert ask(4, 0.1) == (4.0, 0)
    assert ask(4, float("nan")).flips == 4.0
    assert ask(3, 0.4) == (2.0, 3)


def test_answers_to_what_was_forgotten_are_not_kept() -> None:
    ring = Ring(4, 1)
    spots = [Spot(np.array([0, 1], np.float32), 0.0, digest) for digest in range(5)]
    numbers = [ring.put(spot) for spot in spots]
    ring.tell(numbers[0], (7, 7, 7))
    assert not (ring.told == 7).any()
    ring.tell(numbers[4], (7, 7, 7))
    assert (ring.told[0] == 7).all()


def test_a_query_without_an_answer_has_not_that_of_the_one_before_it() -> None:
    ring, spot = Ring(2, 1), Spot(np.array([0, 1], np.float32), 0.0, 1)
    for _ in range(2):
        ring.tell(ring.put(spot), (1, 0.5, 3))
    ring.put(spot)
    assert np.isnan(ring.told[0]).all()
    assert ring.told[1].tolist() == [1, 0.5, 3]


def test_habits_of_a_client(images: Any, calibration: Calibration) -> None:
    now = [0.0]
    watch = QueryWatch(calibration.space, calibration.sizes, clock=lambda: now[0])
    for x in images[:200]:
        now[0] += 0.5
        watch.see("t", "many", x[None])
        watch.see("t", "one", near_copies(images[1500], 1, 0.001 * now[0]))
    many, one = watch.habit("t", "many"), watch.habit("t", "one")
    assert many.rate == pytest.approx(2, rel=0.01)
    assert (many.queries, many.near < 0.2, many.entropy > 2) == (200, True, True)
    assert (one.near > 0.9, one.entropy < 0.5) == (True, True)
    assert watch.habit("t", "nobody").queries == 0


def test_large_inputs_are_averaged_and_another_seed_measures_otherwise() -> None:
    x = np.random.default_rng(0).random((120, 7500), dtype=np.float32)
    one, other = (Space.fit(x, seed=seed) for seed in (0, 1))
    assert one.projection.shape == (938, 32)
    assert (one.place(x)[1] != other.place(x)[1]).any()
    assert np.array_equal(one.place(x)[1], Space.fit(x, seed=0).place(x)[1])
    with pytest.raises(DataError, match=r"have \(7000,\) numbers, not 7500"):
        one.place(x[:, :7000])


def test_a_calibration_comes_back_from_its_files(
    calibration: Calibration, images: Any, tmp_path: Path
) -> None:
    calibration.save(tmp_path)
    queries, search = query_sensors(tmp_path, action="delay")
    assert (queries.action, search.queries is queries) == ("delay", True)
    assert len(queries.version) == 12
    assert queries.version == search.version
    assert queries.calibration.threshold == calibration.threshold
    for mine, other in zip(
        queries.calibration.space.place(images), calibration.space.place(images), strict=True
    ):
        assert np.array_equal(mine, other)
    tensors = tmp_path / "queries.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="do not belong together"):
        query_sensors(tmp_path)
    (tmp_path / "queries.json").write_text("{}")
    with pytest.raises(DataError, match="calibrate-queries"):
        query_sensors(tmp_path)
    with pytest.raises(DataError, match="calibrate-queries"):
        query_sensors(tmp_path / "nowhere")


def test_what_cannot_be_calibrated_is_told(images: Any) -> None:
    with pytest.raises(DataError, match="999 benign queries are too few"):
        calibrate(images[:999])
    with pytest.raises(DataError, match="rate is 2"):
        calibrate(images, rate=2)
    rare = np.concatenate((images, near_copies(images[0], 400, 1e-4)))
    with pytest.raises(DataError, match="ask about one input again and again"):
        calibrate(rare)
    with pytest.raises(DataError, match="are the same"):
        calibrate(np.ones((1000, 4)))
    with pytest.raises(DataError, match="99 benign inputs"):
        Space.fit(images[:99], seed=0)
