"""Who may ask, and how often."""

from __future__ import annotations

import hmac
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from withstand._errors import ConfigError
from withstand.guard.access._keys import Keys
from withstand.guard.access._mac import Mac
from withstand.guard.access._quota import Quota, Rate

PEPPER = bytes(range(32))


@given(st.binary(min_size=1, max_size=64), st.lists(st.binary(max_size=200), max_size=4))
def test_digests_are_those_of_the_standard_library(key: bytes, parts: list[bytes]) -> None:
    assert Mac(key)(*parts) == hmac.digest(key, b"".join(parts), "sha256").hex()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_then_an_even_pace() -> None:
    clock = Clock()
    quota = Quota(Rate(requests=10, seconds=1, burst=3), clock=clock)
    assert [quota.take("a").allowed for _ in range(4)] == [True, True, True, False]
    assert quota.take("a").retry == pytest.approx(0.1)
    assert quota.take("b").allowed
    clock.now += 0.1
    assert [quota.take("a").allowed for _ in range(2)] == [True, False]
    clock.now += 10
    assert [quota.take("a").remaining for _ in range(4)] == [2, 1, 0, 0]


@given(
    st.lists(st.floats(0, 3), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(1, 8),
)
def test_no_window_has_more_than_the_rate_and_a_burst(
    gaps: list[float], requests: int, burst: int
) -> None:
    clock = Clock()
    quota = Quota(Rate(requests=requests, seconds=2, burst=burst), clock=clock)
    passed: list[float] = []
    for gap in gaps:
        clock.now += gap
        verdict = quota.take("a")
        if verdict.allowed:
            passed.append(clock.now)
        else:
            assert 0 < verdict.retry <= 2 / requests + 1e-6
    for i, begin in enumerate(passed):
        for j in range(i, len(passed)):
            assert j - i + 1 <= burst + (passed[j] - begin) * requests / 2 + 1e-6


def test_what_may_not_pass_costs_nothing_and_large_ones_count_more() -> None:
    clock = Clock()
    quota = Quota(Rate(requests=4, seconds=4, burst=4), clock=clock)
    assert quota.take("a", cost=3).allowed
    for _ in range(5):
        assert not quota.take("a", cost=2).allowed
    assert quota.take("a").allowed
    assert not quota.take("a", cost=5).allowed


def test_clients_are_told_in_the_standard_headers() -> None:
    clock = Clock()
    quota = Quota(Rate(requests=2, seconds=60), clock=clock)
    first, second, third = (quota.take("a") for _ in range(3))
    assert quota.headers(first) == {
        "ratelimit-policy": '"default";q=2;w=60', "ratelimit": '"default";r=1;t=30',
    }  # fmt: skip
    assert quota.headers(second)["ratelimit"] == '"default";r=0;t=60'
    assert quota.headers(third)["retry-after"] == "30"


def test_the_memory_has_an_end() -> None:
    quota = Quota(Rate(requests=1), clients=100, clock=Clock())
    for number in range(1000):
        quota.take(str(number))
    assert len(quota._due) == 100
    with pytest.raises(ConfigError, match="0 requests"):
        Rate(requests=0)
    with pytest.raises(ConfigError, match="burst is 0"):
        Rate(requests=1, burst=0)


def test_keys_are_found_again_and_kept_only_as_digests(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = Keys(path, PEPPER)
    secret = keys.make("acme", benign_optimiser=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in path.read_text()
    found = Keys(path, PEPPER).find(secret)
    assert found is not None
    assert (found.tenant, found.benign_optimiser) == ("acme", True)
    assert Keys(path, PEPPER[::-1]).find(secret) is None
    for wrong in ("", "ws_", secret[:-1], secret + "a", secret.swapcase(), found.id, "é" * 46):
        assert keys.find(wrong) is None
    assert keys.revoke(found.id)
    assert not keys.revoke(found.id)
    assert Keys(path, PEPPER).find(secret) is None


def test_a_key_that_is_for_no_client_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    shown = [Keys(path, PEPPER).make(name) for name in ("acme", "else")]
    told = json.loads(path.read_text())
    for one, role in zip(told, ("client", "viewer"), strict=True):
        one["role"] = role
    path.write_text(json.dumps(told))
    keys = Keys(path, PEPPER)
    assert [keys.find(one) is not None for one in shown] == [True, False]


def test_a_keys_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    for content in ("{", '[{"id": 3}]', '["a"]', "3"):
        path.write_text(content)
        with pytest.raises(ConfigError, match="cannot be read"):
            Keys(path, PEPPER)
    with pytest.raises(ConfigError, match="pepper has 3 bytes"):
        Keys(tmp_path / "other", b"abc")
    for nobody in ("", " "):
        with pytest.raises(ConfigError, match="say whose key it is"):
            Keys(tmp_path / "other", PEPPER).make(nobody)
    with pytest.raises(ConfigError, match="cannot be written"):
        Keys(tmp_path / "no" / "where", PEPPER).make("acme")
