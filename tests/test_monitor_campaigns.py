"""Storms are one campaign each, in bounded memory, and false alarms are none."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Iterable

import pytest
from monitoring import NOW

from withstand.config import CampaignsConfig
from withstand.monitor import Campaign
from withstand.monitor.campaigns import Distinct, Grouper, Seen

SETTINGS = CampaignsConfig()


def flag(
    n: int, key: str = "k", *, wall: float | None = None, sensors: tuple[str, ...] = ("queries",),
    model: str = "m", same: bool = False, **more: str,
) -> Seen:  # fmt: skip
    return Seen(
        wall=NOW + n * 0.001 if wall is None else wall, key=key, model=model, sensors=sensors,
        fingerprint="f" if same else f"f{n}", tenant="acme", **more,
    )  # fmt: skip


def fed(seen: Iterable[Seen], settings: CampaignsConfig = SETTINGS) -> Grouper:
    grouper = Grouper(settings)
    for one in seen:
        grouper.see(one)
    return grouper


def campaigns(grouper: Grouper) -> list[Campaign]:
    return sorted((one for one in grouper.changed() if one.open), key=lambda one: one.first)


def storm(requests: int, keys: int, seed: int = 0, *, most: int = 4096) -> tuple[Grouper, int]:
    """So many flagged requests within a minute, and the most bytes that were in use meanwhile."""
    order = [n % keys for n in range(requests)]
    random.Random(seed).shuffle(order)
    tracemalloc.start()
    try:
        grouper = Grouper(SETTINGS, most=most)
        for n, key in enumerate(order):
            grouper.see(flag(n, f"k{key}", wall=NOW + 60 * n / requests))
        return grouper, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_storm_from_one_key_is_one_campaign() -> None:
    grouper, peak = storm(2000, 1)
    (found,) = campaigns(grouper)
    assert (found.kind, found.keys, found.clients) == ("client", ("k0",), 1)
    assert (found.flagged, found.requests) == (2000, 2000)
    assert found.distinct == pytest.approx(2000, rel=0.2)
    assert len(found.inputs) <= 20
    assert peak < 2**20
    assert len(json.dumps(grouper.snapshot())) < 30_000


def test_a_storm_from_many_keys_is_one_campaign() -> None:
    grouper, peak = storm(2000, 1000, most=512)
    (found,) = campaigns(grouper)
    assert (found.kind, found.flagged, len(found.keys)) == ("distributed", 2000, 20)
    assert found.clients == pytest.approx(1000, rel=0.2)
    assert len(grouper) == 512
    assert peak < 3 * 2**20


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("keys", [1, 10_000])
def test_a_hundred_thousand_a_minute_are_one_campaign(keys: int) -> None:
    grouper, peak = storm(100_000, keys, seed=1)
    (found,) = campaigns(grouper)
    assert (found.kind, found.flagged) == ("client" if keys == 1 else "distributed", 100_000)
    assert found.clients == pytest.approx(keys, rel=0.2)
    assert peak < 24 * 2**20


def test_the_same_input_counts_once() -> None:
    assert campaigns(fed(flag(n, same=True) for n in range(1000))) == []
    (found,) = campaigns(fed([*(flag(n) for n in range(20)), *(flag(0) for _ in range(50))]))
    assert (found.flagged, found.distinct) == (70, 20)


def test_a_busy_client_with_false_alarms_is_no_campaign() -> None:
    def busy(rate: int) -> Iterable[Seen]:
        for n in range(6000):
            yield flag(n, wall=NOW + n / 10) if n % rate == 0 else flag(n, sensors=())

    assert campaigns(fed(busy(100))) == []
    assert len(campaigns(fed(busy(10)))) == 1


def test_many_clients_with_false_alarms_are_no_campaign() -> None:
    dice = random.Random(0)

    def all_of_them(share: float) -> Iterable[Seen]:
        for n in range(8000):
            sensors = ("detector",) if dice.random() < share else ()
            yield flag(n, f"k{n % 1000}", wall=NOW + n / 40, sensors=sensors)

    assert campaigns(fed(all_of_them(0.01))) == []
    (found,) = campaigns(fed(all_of_them(0.3)))
    assert found.kind == "distributed"


def test_clients_that_do_the_same_are_put_together_under_the_first_one() -> None:
    grouper = fed(flag(n, "a") for n in range(30))
    (first,) = campaigns(grouper)
    for key in "bcd":
        for n in range(30):
            grouper.see(flag(n + 1000 * ord(key), key))
    assert len({one.id for one in campaigns(grouper)}) == 3
    grouper.see(flag(10**6, "e", wall=NOW + 110))
    told = {one.id: one for one in grouper.changed()}
    (kept,) = (one for one in told.values() if one.open)
    assert (kept.id, kept.kind, kept.clients) == (first.id, "distributed", 5)
    assert (kept.flagged, kept.requests, kept.distinct) == (121, 121, 121)
    assert set(kept.keys) == set("abcde")
    assert len([one for one in told.values() if not one.open]) == 3
    grouper.see(flag(10**6 + 1, "b", wall=NOW + 111))
    assert [one.id for one in grouper.changed()] == [first.id]


def test_others_are_not_put_together_with_them() -> None:
    grouper = fed(flag(n, f"k{n % 10}") for n in range(100))
    for n in range(30):
        grouper.see(flag(n, "x", sensors=("detector",)))
        grouper.see(flag(n, "k1", model="other"))
        grouper.see(flag(n, "k1", experiment="run"))
    found = campaigns(grouper)
    assert sorted((one.kind, one.model, one.experiment, *one.sensors) for one in found) == [
        ("client", "m", "", "detector"), ("client", "m", "run", "queries"),
        ("client", "other", "", "queries"), ("distributed", "m", "", "queries"),
    ]  # fmt: skip


def test_requests_of_its_clients_are_counted_though_they_are_not_flagged() -> None:
    grouper = fed(flag(n) for n in range(20))
    for n in range(5):
        grouper.see(flag(n, sensors=()))
        grouper.see(flag(n, "another", sensors=()))
    (found,) = campaigns(grouper)
    assert (found.flagged, found.requests) == (20, 25)


def test_slow_flags_are_no_campaign() -> None:
    assert campaigns(fed(flag(n, wall=NOW + 60.0 * n) for n in range(100))) == []


def test_a_campaign_ends_when_it_is_quiet_and_another_one_begins() -> None:
    grouper = fed(flag(n) for n in range(20))
    (first,) = campaigns(grouper)
    grouper.settle(NOW + SETTINGS.quiet)
    assert grouper.changed() == []
    grouper.settle(NOW + SETTINGS.quiet + 1)
    (over,) = grouper.changed()
    assert (over.id, over.open) == (first.id, False)
    assert len(grouper) == 0
    later = NOW + 9000
    for n in range(19):
        grouper.see(flag(n, wall=later))
    assert campaigns(grouper) == []
    grouper.see(flag(99, wall=later))
    (second,) = campaigns(grouper)
    assert second.id != first.id
    assert second.first == later


def test_a_clock_that_is_set_changes_nothing() -> None:
    grouper = fed(flag(n) for n in range(20))
    (first,) = campaigns(grouper)
    grouper.shift(-7200.0)
    grouper.settle(NOW - 7200.0 + 10)
    (moved,) = grouper.changed()
    assert (moved.id, moved.open, moved.first) == (first.id, True, first.first - 7200.0)


def test_a_snapshot_goes_on_where_it_was() -> None:
    seen = [flag(n, f"k{n % 7}") for n in range(15)]
    seen += [flag(n, "alone", sensors=("detector",)) for n in range(15)]
    rest = [flag(100 + n, f"k{n % 9}") for n in range(15)]
    rest += [flag(100 + n, "alone", sensors=("detector",)) for n in range(15)]
    whole = fed([*seen, *rest])
    for cut in (1, 14, 25):
        one = fed([*seen, *rest][:cut])
        open_ones = [found for found in one.changed() if found.open]
        other = Grouper(SETTINGS)
        other.restore(json.loads(json.dumps(one.snapshot())), open_ones)
        for later in [*seen, *rest][cut:]:
            other.see(later)
        assert other.snapshot() == whole.snapshot()


@pytest.mark.parametrize("count", [1, 200, 256, 10_000])
def test_different_things_are_counted(count: int) -> None:
    found = Distinct()
    for n in range(count):
        found.add(str(n))
        found.add(str(n // 2))
    assert len(found) == pytest.approx(count, rel=0 if count < 256 else 0.15)
    assert len(found.kept) <= 256


def test_clients_whose_sensor_changes_are_put_together_all_the_same() -> None:
    both, second = ("queries", "search"), ("search",)
    grouper = fed(
        flag(100 * ord(key) + n, key, wall=NOW + start + n, sensors=both)
        for key, start in (("a", 0), ("b", 20), ("c", 40), ("d", 700), ("e", 720))
        for n in range(20)
    )
    first, *others = campaigns(grouper)
    assert len(others) == 4
    for key in "abcde":
        for n in range(20, 24):
            grouper.see(flag(100 * ord(key) + n, key, wall=NOW + 1400 + n, sensors=second))
    (kept,) = campaigns(grouper)
    assert (kept.id, kept.kind, kept.clients, kept.first) == (first.id, "distributed", 5, NOW)
    assert (kept.flagged, kept.distinct, set(kept.keys)) == (120, 120, set("abcde"))
