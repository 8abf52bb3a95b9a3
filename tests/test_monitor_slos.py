"""Promises, burn rates and what can never fire, against arithmetic by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from withstand import WithstandError
from withstand.config import SloConfig, load_operations
from withstand.monitor import RULES, SLIS, Rule, Slo, Tally, burns, slos_of, unreachable, warnings

MINUTE, HOUR, DAY = 60, 3600, 86_400
NOW = 40 * DAY
USUAL = Slo(name="s", sli="M5", objective=0.99)
FEW = Slo(name="s", sli="M1", budget=20)


def steady(events: int, bad: int, *, since: float = 0.0, until: float = NOW) -> Tally:
    return Tally((float(t), events, bad) for t in range(int(since), int(until), MINUTE))


def firing(slo: Slo, tally: Tally, now: float = NOW) -> list[str]:
    return [one.rule.name for one in burns(slo, tally, now) if one.fires]


@pytest.mark.parametrize(
    ("share", "names"),
    [
        (0.0, []),
        (0.01, []),
        (0.011, ["3d"]),
        (0.03, ["3d"]),
        (0.031, ["1d", "3d"]),
        (0.061, ["6h", "1d", "3d"]),
        (0.144, ["6h", "1d", "3d"]),
        (0.145, ["1h", "6h", "1d", "3d"]),
    ],
)
def test_rules_fire_at_the_burn_rates_of_the_book(share: float, names: list[str]) -> None:
    # 2 %, 5 %, 10 % and 10 % of 30 days' budget in 1 h, 6 h, 1 d and 3 d: 14.4, 6, 3 and 1 times.
    tally = steady(1000, round(1000 * share), since=NOW - 4 * DAY)
    assert firing(USUAL, tally) == names
    assert [one.above for one in burns(USUAL, tally, NOW)] == pytest.approx([14.4, 6.0, 3.0, 1.0])


def test_a_count_budget_is_spent_by_events_alone() -> None:
    # 2 of 20 in a day is a tenth, but 5 events are asked for at least.
    for bad, names in ((4, []), (5, ["1h", "6h", "1d", "3d"])):
        tally = Tally([(NOW - 120.0, 1000, bad)])
        assert firing(FEW, tally) == names
    # 5 in the last 3 days, the last one 5 h ago: only the ticket of 3 days still has it in sight.
    spread = [(NOW - 5 * HOUR - n * 10 * HOUR, 1, 1) for n in range(5)]
    assert firing(FEW, Tally(spread)) == ["3d"]
    large = Slo(name="s", sli="M1", budget=2000)
    assert firing(large, Tally([(NOW - 120.0, 100, 40)])) == []
    assert firing(large, Tally([(NOW - 120.0, 100, 41)])) == ["1h"]


def test_an_alert_ends_soon_after_the_trouble() -> None:
    tally = steady(100, 50, since=NOW - HOUR, until=NOW)
    assert "1h" in firing(USUAL, tally, NOW)
    assert "1h" not in firing(USUAL, tally, NOW + 6 * MINUTE)
    # The hour before is still dreadful, so that it is the short window that ended it.
    assert burns(USUAL, tally, NOW + 6 * MINUTE)[0].long == pytest.approx(50.0)
    assert firing(USUAL, tally, NOW + 31 * MINUTE) == ["1d", "3d"]
    # Good events in the short window end it as well as none.
    before = [(NOW - n * MINUTE, 100, 50) for n in range(6, 60)]
    after = [(NOW - n * MINUTE, 100, 0) for n in range(1, 6)]
    assert "1h" not in firing(USUAL, Tally([*before, *after]))


def test_few_events_say_nothing() -> None:
    four = Tally([(NOW - 60.0, 4, 4)])
    assert firing(USUAL, four) == []
    assert burns(USUAL, four, NOW)[0].long == pytest.approx(100.0)
    assert firing(USUAL, Tally([(NOW - 60.0, 5, 5)])) == [one.name for one in RULES]


def test_no_data_is_no_burn_rate() -> None:
    assert {(one.long, one.short, one.fires) for one in burns(USUAL, Tally([]), NOW)} == {
        (None, None, False)
    }


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 5 * DAY), st.integers(0, 50), st.integers(0, 50))),
    st.integers(0, 5 * DAY),
    st.integers(1, 4 * DAY),
)
def test_a_window_is_what_starts_within_it(
    told: list[tuple[int, int, int]], now: int, length: int
) -> None:
    found = Tally([(float(t), e + b, b) for t, e, b in told]).within(now - length, now)
    inside = [(e + b, b) for t, e, b in told if now - length <= t < now]
    assert found == (sum(one for one, _ in inside), sum(one for _, one in inside))


@settings(max_examples=40)
@given(st.integers(1, 200), st.floats(0.5, 0.9999), st.integers(0, 59))
def test_more_bad_events_never_end_an_alert(events: int, objective: float, at: int) -> None:
    slo = Slo(name="s", sli="M5", objective=objective)
    before = [(NOW - MINUTE * (n + 1.0), events, (n * 7) % (events + 1)) for n in range(60)]
    worse = list(before)
    worse[at] = (worse[at][0], events, events)
    assert set(firing(slo, Tally(before))) <= set(firing(slo, Tally(worse)))


@settings(max_examples=50)
@given(st.floats(0.01, 0.9999), st.floats(1, 90))
def test_a_rule_is_named_exactly_if_it_cannot_fire(objective: float, days: float) -> None:
    slo = Slo(name="s", sli="M5", objective=objective, days=days)
    worst = burns(slo, Tally([(NOW - 60.0, 100, 100)]), NOW)
    named = [line.split(" rule ")[1].split(" ")[0] for line in unreachable(slo)]
    assert named == [one.rule.name for one in worst if not one.fires]


def test_what_cannot_fire_tells_its_limit_and_the_fix() -> None:
    (line,) = unreachable(Slo(name="fooled", sli="M1", objective=0.9))
    assert line == (
        "SLO fooled: rule 1h (page) never fires: it needs a burn rate above 14.4, and with "
        "objective 0.9 it cannot exceed 10; raise the objective above 0.9306, or give a budget of "
        "events instead"
    )
    assert len(unreachable(Slo(name="s", sli="M1", objective=0.75))) == 2
    assert len(unreachable(Slo(name="s", sli="M1", objective=0.93))) == 1
    assert unreachable(Slo(name="s", sli="M1", objective=0.931)) == []
    late = unreachable(Slo(name="s", sli="M1", budget=4))
    assert len(late) == len(RULES)
    assert "lower least to 2" in late[0]
    assert unreachable(Slo(name="s", sli="M1", budget=5)) == []


def test_no_rule_asks_for_less_than_spending_all() -> None:
    short = Slo(name="s", sli="M5", objective=0.99, days=7)
    assert [rule.above(short) for rule in RULES] == pytest.approx([3.36, 1.4, 1.0, 1.0])
    assert Rule(name="r", severity="page", share=0.02, long=HOUR, short=300).above(
        Slo(name="s", sli="M5", objective=0.99, days=60)
    ) == pytest.approx(28.8)


def test_the_ten_indicators() -> None:
    assert list(SLIS) == [f"M{n}" for n in range(1, 11)]
    for sli in SLIS.values():
        assert (sli.kind == "share") == bool(sli.bad)
        assert sli.source
        assert sli.meaning.endswith(".")


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({"slos": {"a": {"sli": "M5"}}}, "slos.a.objective or budget: give one of them"),
    "both": ({"slos": {"a": {"sli": "M5", "objective": 0.9, "budget": 3}}}, "give one of them"),
    "figure": ({"slos": {"a": {"sli": "M8", "budget": 3}}}, "it is one of M1, M2, M3, M5, M7"),
    "all": ({"slos": {"a": {"sli": "M5", "objective": 1}}}, "above 0 and below 1, e.g. 0.99"),
    "days": ({"slos": {"a": {"sli": "M5", "objective": 0.9, "days": 365}}}, "is 365; give 1 to"),
    "name": ({"slos": {"a b": {"sli": "M5", "objective": 0.9}}}, "give letters, digits, - and _"),
    "listen": ({"listen": "0.0.0.0:80"}, "which others reach; give 127.0.0.1"),
    "receiver": ({"receivers": {"r": {"least": "page"}}}, "alertmanager: give one of them"),
    "no url": ({"receivers": {"r": {"webhook": "ftp://x"}}}, "is no URL"),
    "secret": (
        {"receivers": {"r": {"webhook": "http://h/", "secret": "hidden"}}}, "give env:NAME or",
    ),
    "signed manager": (
        {"receivers": {"r": {"alertmanager": "http://h", "secret": "env:X"}}}, "is for webhooks",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_file_is_one_line_with_its_fix(tmp_path: Path, name: str) -> None:
    keys, words = MISTAKES[name]
    path = tmp_path / "withstand.yaml"
    path.write_text(yaml.safe_dump({"monitor": keys}))
    with pytest.raises(WithstandError, match=words) as caught:
        load_operations(path)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_what_will_not_do_what_it_seems_to_is_named(tmp_path: Path) -> None:
    path = tmp_path / "withstand.yaml"
    guard: dict[str, Any] = {
        "upstream": "http://127.0.0.1:9", "open": True, "mode": "observe", "models": {"m": {}},
        "evidence": {"folder": "evidence", "records": 0.1},
    }  # fmt: skip
    slos = {
        "fooled": {"sli": "M1", "objective": 0.9},
        "other": {"sli": "M5", "objective": 0.99, "model": "n"},
    }
    path.write_text(yaml.safe_dump({"guard": guard, "monitor": {"slos": slos}}))
    told = load_operations(path)
    assert [one.name for one in slos_of(told.monitor)] == ["fooled", "other"]
    found = warnings(told, tmp_path)
    for words in (
        "rule 1h (page) never fires", "receivers is empty", "SLO other is about model n",
        "up to 10 times too high; set it to 1", "mode is observe",
    ):  # fmt: skip
        assert [line for line in found if words in line], words
    assert len(found) == 5
    path.write_text(yaml.safe_dump({"monitor": {}}))
    assert [line.split(" ")[0] for line in warnings(load_operations(path), tmp_path)] == [
        "monitor.slos", "monitor.receivers", "guard.evidence",
    ]  # fmt: skip


def test_the_reference_tells_every_indicator_as_it_is() -> None:
    page = (Path(__file__).parents[1] / "docs/reference/slis.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| M")]
    assert rows == [
        f"| {sli.id} | {sli.name} | {sli.unit or '-'} | {sli.better} | {sli.meaning} "
        f"| {sli.source} | {sli.bad or '-'} | {', '.join(sli.ids) or '-'} |"
        for sli in SLIS.values()
    ]
    for key in SloConfig.model_fields:
        assert f"| `{key}` |" in page


def test_a_rule_that_is_told_in_words_is_the_rule() -> None:
    page = (Path(__file__).parents[1] / "docs/explanation/operations.md").read_text()
    for rule in RULES:
        above = rule.above(Slo(name="s", sli="M5", objective=0.99))
        assert f"| {rule.severity} | {100 * rule.share:g} % | " in page
        assert f"| {above:g} |" in page


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"budget": 0}, "a budget of 0; give at least 1"),
        ({"budget": 5, "days": 0.0}, "about 0 days; give above 0"),
    ],
)
def test_a_promise_of_nothing_is_none(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(WithstandError, match=words):
        Slo(name="a", sli="M1", **wrong)
