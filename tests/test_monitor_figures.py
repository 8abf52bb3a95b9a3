"""Indicators from counts and observations: right by hand, and no data is never good."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitoring import NOW
from scipy.stats import beta

from withstand import WithstandError
from withstand.config import MonitorConfig
from withstand.monitor import (
    Bucket,
    Counts,
    Figure,
    Observation,
    Observations,
    Slo,
    Store,
    figures,
    status,
)
from withstand.monitor._figures import variance
from withstand.monitor._reports import coverage, degradation
from withstand.monitor.store import Moments

DAY = 86_400


def by_id(found: list[Figure]) -> dict[str, Figure]:
    return {one.sli.id: one for one in found}


def counted(store: Store, told: dict[tuple[str, str, int], list[int]]) -> None:
    Counts(store)
    with store.writing() as file:
        Counts.within(file, told, {})


def test_nothing_at_all_is_no_data(tmp_path: Path) -> None:
    store = Store(tmp_path)
    found = figures(store, NOW)
    assert [one.sli.id for one in found] == [f"M{n}" for n in range(1, 11)]
    assert {str(one.interval) for one in found} == {"no data"}
    assert {one.to_dict()["value"] for one in found} == {None}
    for slo in (Slo(name="a", sli="M5", objective=0.9), Slo(name="b", sli="M1", budget=3)):
        (told,) = status(store, [slo], NOW)
        assert (told.budget_left, told.verdict, told.n) == (None, "no data", 0)
        assert told.to_dict()["low"] is None


def test_a_share_has_its_exact_interval(tmp_path: Path) -> None:
    store = Store(tmp_path)
    probes = [
        Observation(sli=sli, wall=NOW - n, source=f"{sli}:{n}", bad=n < 3, model="m")
        for sli in ("M1", "M2")
        for n in range(50)
    ]
    Observations(store).add(probes)
    found = by_id(figures(store, NOW))
    ends = [beta.ppf(0.025, 3, 48), beta.ppf(0.975, 4, 47)]
    one = found["M1"].interval
    assert (one.value, one.n, found["M1"].bad) == (0.06, 50, 3)
    assert [one.low, one.high] == pytest.approx(ends, rel=1e-9)
    # A true positive is what is not bad.
    other = found["M2"].interval
    assert other.value == pytest.approx(0.94)
    assert [other.low, other.high] == pytest.approx([1 - ends[1], 1 - ends[0]], rel=1e-9)


def test_a_budget_is_what_is_left_of_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    hour = int(NOW) // 3600 * 3600
    counted(store, {
        ("M5", "a", hour - 3600): [1000, 4], ("M5", "b", hour - 3600): [1000, 0],
        ("M5", "a", hour - 31 * DAY): [10, 10],
    })  # fmt: skip
    slos = [
        Slo(name="all", sli="M5", objective=0.99),
        Slo(name="a", sli="M5", objective=0.99, model="a"),
        Slo(name="spent", sli="M5", budget=3),
    ]
    told = status(store, slos, NOW)
    assert [(one.n, one.bad) for one in told] == [(2000, 4), (1000, 4), (2000, 4)]
    assert [one.budget_left for one in told] == pytest.approx([0.8, 0.6, -1 / 3])
    assert [one.verdict for one in told] == ["kept", "kept", "spent"]
    assert told[0].series == (Bucket(hour - 3600, 2000, 4),)


def test_what_probes_and_what_evidence_has_seen_is_added_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    minute = int(NOW) // 60 * 60
    counted(store, {("M3", "m", minute): [10, 1]})
    seen = [Observation(sli="M3", wall=minute + 5.0, source="x", bad=True, model="m")]
    Observations(store).add([*seen, Observation(sli="M3", wall=NOW, source="y", value=1.0)])
    counts = Counts(store)
    assert counts.buckets("M3") == [Bucket(minute, 11, 2)]
    assert counts.total("M3") == counts.total("M3", "m") == (11, 2)
    assert counts.total("M3", "other") == (0, 0)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 150 * DAY), st.integers(0, 9), st.integers(0, 9)), max_size=9)
)
def test_merging_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[int, int, int]]
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    new: dict[tuple[str, str, int], list[int]] = {}
    for ago, good, bad in told:
        place = new.setdefault(("M5", "m", (int(NOW) - ago) // 60 * 60), [0, 0])
        place[0] += good + bad
        place[1] += bad
    counted(store, new)
    counts = Counts(store)
    total, fine = counts.total("M5"), counts.buckets("M5", since=NOW - 3 * DAY)
    month = counts.buckets("M5", since=NOW // 3600 * 3600 - 30 * DAY, width=3600)
    for _ in range(2):
        counts.merge(NOW)
        assert counts.total("M5") == total
        assert counts.buckets("M5", since=NOW - 3 * DAY) == fine
        since = NOW // 3600 * 3600 - 30 * DAY
        assert counts.buckets("M5", since=since, width=3600) == month
    assert not store.rows("SELECT * FROM counts WHERE start BETWEEN 0 AND ?", (NOW - 102 * DAY,))
    assert all(one.start % 3600 == 0 for one in counts.buckets("M5", until=NOW - 5 * DAY))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=50))
def test_a_variance_is_that_of_the_values(values: list[float]) -> None:
    half, rest = Moments(), Moments()
    for n, value in enumerate(values):
        half, rest = (half.add(value), rest) if n % 2 else (half, rest.add(value))
    found = variance(half.join(rest))
    assert found.n == len(values)
    assert found.value == pytest.approx(np.var(values, ddof=1), abs=1e-9)
    assert found.low <= found.value <= found.high


def test_the_interval_of_a_variance_covers_it() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(60):
        moments = Moments()
        for value in rng.beta(4, 2, 200):
            moments = moments.add(float(value))
        found = variance(moments)
        covered += found.low <= beta(4, 2).var() <= found.high
    assert 52 <= covered <= 60


def test_confidence_is_told_by_model(tmp_path: Path) -> None:
    store = Store(tmp_path)
    Counts(store)
    minute = int(NOW) // 60 * 60
    moments = {
        ("a", minute): Moments().add(0.2).add(0.4),
        ("b", minute): Moments().add(0.9),
        ("a", minute - 7200): Moments().add(100.0),
    }
    with store.writing() as file:
        Counts.within(file, {}, moments)
    found = [one for one in figures(store, NOW) if one.sli.id == "M4"]
    assert [(one.model, one.interval.n) for one in found] == [("a", 2), ("b", 0)]
    assert found[0].interval.value == pytest.approx(0.02)


def test_times_are_told_by_their_median(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seen = Observations(store)
    seen.add([Observation(sli="M8", wall=NOW - 40 * DAY, source="old", value=9e9)])
    seen.add([Observation(sli="M8", wall=NOW, source="1", value=5.0)])
    one = by_id(figures(store, NOW))["M8"].interval
    assert (one.value, one.n, one.low, one.high) == (5.0, 1, -math.inf, math.inf)
    seen.add(Observation(sli="M8", wall=NOW, source=f"s{n}", value=float(n)) for n in range(21))
    one = by_id(figures(store, NOW))["M8"].interval
    assert one.n == 22
    assert 0 < one.low < one.value < one.high < 20


def report(folder: Path, name: str, **shares: tuple[float, float, float]) -> None:
    told = {
        f"{key}_accuracy": {"value": value, "low": low, "high": high, "n": 100}
        for key, (value, low, high) in shares.items()
    }
    (folder / name).write_text(json.dumps(told))


def test_figures_in_files_are_taken_when_they_change(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    seen = Observations(store)
    config = MonitorConfig.model_validate(
        {"coverage": "c.json", "degradation": {"before": "b.json", "after": "a.json"}}
    )

    def reported(now: float) -> list[Observation]:
        return [*coverage(config, tmp_path, now), *degradation(config, tmp_path, now)]

    assert reported(NOW) == []
    (tmp_path / "c.json").write_text('{"tests": 40, "robustness": 10}')
    report(tmp_path, "b.json", clean=(0.9, 0.8, 0.95), robust=(0.2, 0.1, 0.3))
    report(tmp_path, "a.json", clean=(0.85, 0.75, 0.9), robust=(0.5, 0.4, 0.6))
    assert seen.add(reported(NOW)) == 3
    assert seen.add(reported(NOW + 1)) == 0
    found = [one for one in figures(store, NOW + 2) if one.sli.id in ("M6", "M10")]
    assert [(one.of, one.interval.n) for one in found] == [
        ("clean_accuracy", 100), ("robust_accuracy", 100), ("", 40),
    ]  # fmt: skip
    clean, robust, covered = (one.interval for one in found)
    assert [clean.value, clean.low, clean.high] == pytest.approx([0.05, -0.1, 0.2])
    assert [robust.value, robust.low, robust.high] == pytest.approx([-0.3, -0.5, -0.1])
    assert covered.value == covered.low == 0.25
    (tmp_path / "c.json").write_text('{"tests": 40, "robustness": 20}')
    seen.add(reported(NOW + 3))
    assert by_id(figures(store, NOW + 4))["M10"].interval.value == 0.5


@pytest.mark.parametrize(
    "told",
    [
        "[]", "{", '{"tests": 3}', '{"tests": 1, "robustness": 2}', '{"tests": 1.5}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_one_line(tmp_path: Path, told: str) -> None:
    (tmp_path / "robustness-coverage.json").write_text(told)
    with pytest.raises(WithstandError, match=r"cannot be read .*; write it anew") as caught:
        list(coverage(MonitorConfig(), tmp_path, NOW))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("n", "NaN"), ("n", "Infinity"), ("value", "-Infinity"), ("low", "1" + "0" * 400)],
)
def test_a_report_without_finite_figures_is_one_line(tmp_path: Path, key: str, wrong: str) -> None:
    for name in ("b.json", "a.json"):
        report(tmp_path, name, clean=(0.9, 0.8, 0.95), robust=(0.2, 0.1, 0.3))
    told = json.loads((tmp_path / "a.json").read_text())
    told["robust_accuracy"][key] = "WRONG"
    (tmp_path / "a.json").write_text(json.dumps(told).replace('"WRONG"', wrong))
    config = MonitorConfig.model_validate({"degradation": {"before": "b.json", "after": "a.json"}})
    with pytest.raises(WithstandError, match=r"a\.json cannot be read \(robust_accuracy has"):
        list(degradation(config, tmp_path, NOW))


def test_a_file_that_is_replaced_while_it_is_read_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, seen = tmp_path / "robustness-coverage.json", Observations(Store(tmp_path / "store"))
    place.write_text('{"tests": 40, "robustness": 10}')
    loads = json.loads

    def replaced(content: bytes) -> Any:
        new = tmp_path / "new"
        new.write_text('{"tests": 40, "robustness": 20}')
        new.replace(place)
        return loads(content)

    with monkeypatch.context() as patched:
        patched.setattr("withstand.monitor._reports.json.loads", replaced)
        found = list(coverage(MonitorConfig(), tmp_path, NOW))
    assert [one.value for one in found] == [0.25]
    seen.add(found)
    assert seen.add(coverage(MonitorConfig(), tmp_path, NOW + 1)) == 1
    assert [one.value for one in seen.of("M10")] == [0.25, 0.5]


def test_no_tests_are_no_coverage(tmp_path: Path) -> None:
    (tmp_path / "robustness-coverage.json").write_text('{"tests": 0, "robustness": 0}')
    store = Store(tmp_path / "store")
    Observations(store).add(coverage(MonitorConfig(), tmp_path, NOW))
    told: dict[str, Any] = by_id(figures(store, NOW))["M10"].to_dict()
    assert (told["value"], told["n"]) == (None, 0)


def test_a_copy_that_is_moved_back_is_news(tmp_path: Path) -> None:
    place, seen = tmp_path / "robustness-coverage.json", Observations(Store(tmp_path / "store"))

    def found(now: float) -> list[float | None]:
        seen.add(coverage(MonitorConfig(), tmp_path, now))
        return [one.value for one in seen.of("M10")]

    place.write_text('{"tests": 40, "robustness": 20}')
    assert found(NOW) == [0.5]
    place.rename(tmp_path / "old")
    place.write_text('{"tests": 40, "robustness": 4}')
    assert found(NOW + 1) == [0.5, 0.1]
    (tmp_path / "old").rename(place)
    assert found(NOW + 2) == [0.5, 0.1, 0.5]
