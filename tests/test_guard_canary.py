"""A new version beside the stable one: who is sent where, what moves it, and what never does."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from withstand._errors import ConfigError, OperationError
from withstand.guard.canary import (
    Canary,
    Judgement,
    Margin,
    Rollout,
    Rollouts,
    Settings,
    Tally,
    judge,
)
from withstand.guard.wire import RequestError

SECRET = b"s" * 32
EAGER = Settings(least=1.0, patience=600.0)
ONLY_ERRORS = Settings(least=1.0, patience=600.0, margins={"errors": Margin(more=0.01, most=0.05)})


class Clock:
    """One that goes as it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A rollout, what it keeps and tells, and the traffic and probes it sees."""

    def __init__(self, settings: Settings = EAGER, *, seed: int = 0) -> None:
        self.settings, self.random, self.clock = settings, random.Random(seed), Clock()
        self.kept: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.sources = 0
        self.rollout = self.made({})

    def made(self, told: dict[str, Any]) -> Rollout:
        rollout = Rollout(
            told, keep=lambda told: self.kept.append(json.loads(json.dumps(told))), secret=SECRET,
            clock=self.clock, wall=lambda: 5e8,
        )  # fmt: skip
        rollout.tell = self.told.append
        return rollout

    def started(self) -> World:
        assert self.rollout.start(self.settings, "ann", "a new version")
        return self

    def traffic(
        self, requests: int, *, errors: tuple[float, float] = (0, 0), slow: float = 0.01
    ) -> None:
        """So many requests on each of the two arms; errors: their shares, the canary's first."""
        for _ in range(requests):
            for arm, share in zip(("canary", "control"), errors, strict=True):
                status = 500 if self.random.random() < share else 200
                seconds = slow * self.random.uniform(0.5, 1.5)
                self.rollout.saw(arm, self.settings, status=status, seconds=seconds, flagged=False)

    def probes(self, n: int, canary: float, control: float) -> None:
        """Pairs of which these shares are fooled, as alike as they can be."""
        counts = [0, 0, 0, 0]
        for _ in range(n):
            place = self.random.random()
            counts[2 * (place >= canary) + (place >= control)] += 1
        self.sources += 1
        self.rollout.pairs("fooled", counts, f"s{self.sources}")

    def pass_(self, seconds: float, stride: float = 1.0) -> None:
        """Time passes, and it is looked at each second."""
        for _ in range(math.ceil(seconds / stride)):
            self.clock.now += stride
            self.rollout.consider(self.settings)


def test_a_sound_version_goes_all_the_way_and_each_step_has_evidence_of_its_own() -> None:
    world = World().started()
    weights = [world.rollout.weight]
    world.probes(2000, 0.05, 0.05)
    while world.rollout.state == "running" and len(weights) < 50:
        world.traffic(3000)
        world.pass_(2)
        weights.append(world.rollout.weight)
    assert world.rollout.state == "promoted"
    assert sorted(set(weights)) == [5, 10, 25, 50, 100]
    assert weights == sorted(weights)
    raised = [told for told in world.told if told["state"] in ("running", "promoted")]
    assert [told["weight"] for told in raised] == [5, 10, 25, 50, 100]
    # What the last step rests on is its own traffic, not that of all steps.
    assert raised[-1]["compared"]["errors"]["pairs"] <= 6000
    assert raised[-1]["compared"]["fooled"]["pairs"] == 2000


def test_a_version_that_is_twice_as_foolable_is_rolled_back() -> None:
    world = World().started()
    for _ in range(200):
        if world.rollout.state != "running":
            break
        world.traffic(200)
        world.probes(20, 0.2, 0.1)
        world.pass_(1)
    assert (world.rollout.state, world.rollout.weight) == ("rolled_back", 0)
    assert world.told[-1]["why"] == "worse in fooled"
    assert world.told[-1]["compared"]["fooled"]["verdict"] == "fail"
    assert world.kept[-1]["weight"] == 0


def nothing(world: World) -> None:
    world.pass_(50)


def all_errors(world: World) -> None:
    world.probes(2000, 0.05, 0.05)
    world.traffic(2000, errors=(1.0, 0.0))
    world.pass_(50)


def both_fail(world: World) -> None:
    world.probes(2000, 0.05, 0.05)
    world.traffic(2000, errors=(0.5, 0.5))
    world.pass_(50)


def both_fooled(world: World) -> None:
    world.probes(3000, 0.7, 0.7)
    for _ in range(20):
        world.traffic(500)
        world.pass_(1)


def no_probes(world: World) -> None:
    for _ in range(20):
        world.traffic(500)
        world.pass_(1)


def no_traffic(world: World) -> None:
    world.probes(5000, 0.05, 0.05)
    world.pass_(50)


def control_alone(world: World) -> None:
    world.probes(5000, 0.05, 0.05)
    for _ in range(5000):
        world.rollout.saw("control", world.settings, status=200, seconds=0.01, flagged=False)
    world.pass_(50)


def flapping(world: World) -> None:
    world.probes(5000, 0.05, 0.05)
    for turn in range(40):
        world.traffic(50, errors=(0.6 * (turn % 2), 0.0))
        world.pass_(1)


def clock_jumps(world: World) -> None:
    world.traffic(5000)
    world.probes(5000, 0.05, 0.05)
    for jump in (3600.0, -7200.0, 86_400.0):
        world.clock.now += jump
        world.rollout._wall = lambda: 0.0
        before = world.rollout.weight
        world.rollout.consider(Settings(least=100.0, patience=600.0))
        assert world.rollout.weight == before


def one_indicator_of_three(world: World) -> None:
    world.probes(5000, 0.05, 0.05)
    for _ in range(20):
        for _ in range(500):
            for arm in ("canary", "control"):
                # Answers that are all refused before the model is asked: no time is known.
                world.rollout.saw(arm, world.settings, status=-1, seconds=0, flagged=True)
        world.pass_(1)


@pytest.mark.parametrize(
    "fault",
    [nothing, all_errors, both_fail, both_fooled, no_probes, no_traffic, control_alone, flapping,
     clock_jumps, one_indicator_of_three],
)  # fmt: skip
def test_what_is_not_known_or_bad_is_never_let_on(fault: Callable[[World], None]) -> None:
    world = World().started()
    fault(world)
    rollout = world.rollout
    assert rollout.weight in (0, 5)
    assert rollout.state in (
        ("rolled_back",)
        if fault in (all_errors, both_fail, both_fooled, flapping)
        else ("running", "frozen")
    )
    if rollout.state == "running":
        told = rollout.told(world.settings)
        assert told["verdict"] == "inconclusive" or fault is clock_jumps


@pytest.mark.parametrize(
    ("hold", "state", "weight"), [(True, "frozen", 5), (False, "rolled_back", 0)]
)
def test_a_step_without_a_verdict_is_held_or_rolled_back(
    hold: bool, state: str, weight: float
) -> None:
    settings = Settings(least=1.0, patience=30.0, hold=hold)
    world = World(settings).started()
    world.traffic(500)
    world.pass_(29)
    assert world.rollout.state == "running"
    world.pass_(2)
    assert (world.rollout.state, world.rollout.weight) == (state, weight)
    if hold:
        assert world.rollout.resume("ann", "probes come now")
        world.pass_(29)
        assert world.rollout.state == "running"


def test_a_machine_that_slept_has_not_watched() -> None:
    world = World(Settings(least=100.0, patience=600.0)).started()
    world.traffic(3000)
    world.probes(3000, 0.05, 0.05)
    world.pass_(90_000, stride=90_000)
    assert (world.rollout.state, world.rollout.weight) == ("running", 5)


def test_failures_in_a_row_roll_back_at_once_and_clients_mistakes_do_not() -> None:
    world = World(ONLY_ERRORS).started()

    def saw(status: int, arm: str = "canary") -> None:
        world.rollout.saw(arm, ONLY_ERRORS, status=status, seconds=0.1, flagged=False)

    for _ in range(30):
        saw(400)
        saw(503, "control")
    for _ in range(9):
        saw(0)
    saw(200)
    for _ in range(9):
        saw(502)
    assert world.rollout.weight == 5
    saw(0)
    # Without anybody having looked.
    assert (world.rollout.state, world.rollout.weight) == ("rolled_back", 0)
    assert world.kept[-1]["state"] == "rolled_back"
    assert world.told[-1]["why"] == "10 failures of the canary in a row"


def test_a_frozen_version_is_still_watched() -> None:
    world = World().started()
    assert world.rollout.freeze("ann", "lunch")
    world.traffic(5000)
    world.probes(5000, 0.05, 0.05)
    world.pass_(100)
    assert (world.rollout.state, world.rollout.weight) == ("frozen", 5)
    world.probes(1000, 0.5, 0.05)
    world.pass_(1)
    assert world.rollout.state == "rolled_back"


def test_orders_count_once_and_only_where_they_can() -> None:
    world = World()
    rollout, settings = world.rollout, world.settings
    assert not rollout.rollback("ann", "nothing there")
    for act in (rollout.freeze, rollout.resume, rollout.promote):
        with pytest.raises(OperationError, match="the canary is off; this is for one that is"):
            act("ann", "", "early")
    # An order that came to nothing may be given again.
    assert rollout.start(settings, "ann", "", "early")
    assert rollout.freeze("ann", "", "a")
    assert rollout.resume("ann", "", "b")
    # Old orders that come again, by a network that tries twice, change nothing.
    assert not rollout.freeze("ann", "", "a")
    assert rollout.state == "running"
    assert rollout.rollback("ann", "", "c")
    assert not rollout.rollback("ann", "", "c")
    assert not rollout.start(settings, "ann", "", "early")
    assert (rollout.state, rollout.weight) == ("rolled_back", 0)
    assert rollout.start(settings, "bob", "mended")
    assert rollout.promote("bob", "I know better")
    assert (rollout.state, rollout.weight) == ("promoted", 100)
    with pytest.raises(OperationError, match="is promoted"):
        rollout.start(settings, "bob", "")
    assert rollout.rollback("bob", "I did not")
    states = [told["state"] for told in world.told]
    assert states[-4:] == ["rolled_back", "running", "promoted", "rolled_back"]


def test_probes_count_once_and_only_while_it_runs() -> None:
    world = World()
    with pytest.raises(OperationError, match="start it before it is probed"):
        world.rollout.outcomes("canary", "fooled", 10, 1, "a")
    world.started()
    assert world.rollout.outcomes("canary", "fooled", 10, 1, "a")
    assert not world.rollout.outcomes("canary", "fooled", 10, 1, "a")
    assert world.rollout.outcomes("control", "fooled", 30, 3, "b")
    assert world.rollout.tallies["fooled"].n == 10
    with pytest.raises(OperationError, match="11 of 10 probes cannot be"):
        world.rollout.outcomes("canary", "fooled", 10, 11, "c")
    told = world.rollout.told(world.settings)["arms"]
    assert told["canary"]["fooled"] == {"tried": 10, "happened": 1}
    assert told["control"]["fooled"] == {"tried": 30, "happened": 3}
    # What was told before a restart counts no second time either.
    again = world.made(world.kept[-1])
    assert not again.outcomes("canary", "fooled", 10, 1, "a")
    assert again.tallies["fooled"].counts == world.rollout.tallies["fooled"].counts


def test_probes_of_two_arms_are_paired_without_regard_to_what_happened() -> None:
    both = 0
    for seed in range(200):
        random.seed(seed)
        world = World().started()
        world.rollout.outcomes("canary", "fooled", 20, 10, "a")
        world.rollout.outcomes("control", "fooled", 20, 10, "b")
        both += world.rollout.tallies["fooled"].counts[0]
    # 200 x 20 pairs, a quarter of which is expected; hypergeometric, 4 standard errors.
    assert abs(both - 1000) < 4 * math.sqrt(200 * 20 * 0.25 * 0.75)


def test_clients_only_ever_move_to_the_canary_as_it_grows() -> None:
    world = World().started()
    clients = [f"key-{n}" for n in range(4000)]
    before: dict[str, str] = {}
    for weight in (5, 10, 25, 50, 75, 100):
        world.rollout._weigh(weight)
        now = {one: world.rollout.arm(one) for one in clients}
        assert now == {one: world.rollout.arm(one) for one in clients}
        shares = [list(now.values()).count(arm) / 4000 for arm in ("canary", "control")]
        # Both arms have the same size, as long as there is enough for two: 4 standard errors.
        for share, wanted in zip(
            shares, (weight / 100, min(weight, 100 - weight) / 100), strict=True
        ):
            assert abs(share - wanted) <= 4 * math.sqrt(wanted * (1 - wanted) / 4000)
        assert all(now[one] == "canary" for one, arm in before.items() if arm == "canary")
        before = now
    # Another rollout chooses others.
    first = {one for one in clients if world.rollout.arm(one) == "canary"}
    world.rollout.rollback("ann", "")
    world.rollout.start(world.settings, "ann", "")
    assert {one for one in clients if world.rollout.arm(one) == "canary"} < first
    kept = world.made(world.kept[-1])
    assert [kept.arm(one) for one in clients] == [world.rollout.arm(one) for one in clients]


def test_choosing_an_arm_and_counting_it_cost_next_to_nothing() -> None:
    world = World().started()
    canary = Canary(upstream=None, rollout=world.rollout)  # type: ignore[arg-type]
    clients = [f"{n:064x}" for n in range(1000)]
    best = math.inf
    for _ in range(30):
        # Each client is seen for the first time, which is the dearest.
        world.rollout._weigh(50)
        before = time.perf_counter()
        for n, client in enumerate(clients):
            canary.arm(client, client)
            arm = "control" if n % 2 else "canary"
            canary.saw(arm, status=200, seconds=0.01, flagged=False)
        best = min(best, (time.perf_counter() - before) / len(clients))
    # Less than 2 microseconds are promised; a busy machine may take a little more.
    assert best < 4e-6


def test_outcomes_are_paired_in_order_and_the_oldest_that_wait_go_first() -> None:
    for first, second, place in (
        (True, True, 0), (True, False, 1), (False, True, 2), (False, False, 3),
    ):  # fmt: skip
        counts = [int(one == place) for one in range(4)]
        for arms in (("canary", "control"), ("control", "canary")):
            tally = Tally()
            for arm in arms:
                tally.saw(arm, first if arm == "canary" else second)
            assert tally.counts == counts
    tally = Tally()
    for n in range(1500):
        tally.saw("control", n < 500)
    tally.saw("canary", False)
    assert tally.counts == [0, 0, 0, 1]


def test_a_verdict_needs_its_pairs_its_limit_and_its_share_of_alpha() -> None:
    settings = Settings(alpha=0.05)

    def judged(sli: str, *counts: int, **margin: float) -> Judgement:
        margins = {**settings.margins, sli: replace(settings.margins[sli], **margin)}
        tallies = {sli: Tally(list(counts))}
        return judge(tallies, replace(settings, margins=margins))[sli]

    assert judged("fooled", 20, 0, 0, 180).verdict == "pass"
    assert judged("fooled", 20, 0, 0, 180, least=201).verdict == "inconclusive"
    assert judged("fooled", 96, 0, 0, 104, most=1.0).verdict == "pass"
    assert judged("fooled", 96, 0, 0, 104).verdict == "inconclusive"
    assert judged("fooled", 160, 0, 0, 40).verdict == "fail"
    # Four steps below 100: traffic is looked at anew at each. Two tests of probes, and two of each
    # of the two that are of the traffic, at each step.
    assert judged("fooled", 0, 0, 0, 0).passes == pytest.approx(math.log(1 / 0.05))
    assert judged("errors", 0, 0, 0, 0).passes == pytest.approx(math.log(4 / 0.05))
    assert judged("fooled", 0, 0, 0, 0).fails == pytest.approx(math.log(2 / 0.025))
    assert judged("errors", 0, 0, 0, 0).fails == pytest.approx(math.log(16 / 0.025))


def test_a_pass_has_the_arm_it_asks_for_or_nothing() -> None:
    world = World()
    canary = Canary(upstream=None, rollout=world.rollout, room=1)  # type: ignore[arg-type]
    assert canary.arm("key", "told") == "stable"
    with pytest.raises(RequestError, match="no arm 'canary' at present"):
        canary.arm("key", "told", "canary")
    world.started()
    assert canary.arm("key", "told", "canary") == "canary"
    assert canary.arm("key", "told", "control") == "control"
    with pytest.raises(RequestError, match="no arm 'other'"):
        canary.arm("key", "told", "other")
    canary.under_way = 1
    assert not canary.free(forced=False)
    with pytest.raises(RequestError, match="cannot be asked"):
        canary.free(forced=True)
    world.rollout.promote("ann", "")
    assert canary.free(forced=False)


def test_by_input_the_same_input_stays_on_its_arm_whoever_asks() -> None:
    world = World().started()
    world.rollout._weigh(30)
    spread = Canary(upstream=None, rollout=world.rollout, settings=Settings(by_input=True))  # type: ignore[arg-type]
    sticky = Canary(upstream=None, rollout=world.rollout)  # type: ignore[arg-type]
    inputs = [f"input-{n}" for n in range(200)]
    assert [spread.arm("a", one) for one in inputs] == [spread.arm("b", one) for one in inputs]
    assert len({sticky.arm("a", one) for one in inputs}) == 1
    # An open guard has one client only: all of it would be on one arm.
    assert len({sticky.arm("open", one) for one in inputs}) == 3


def test_a_restart_goes_on_at_the_same_weight_and_never_higher(tmp_path: Path) -> None:
    path = tmp_path / "state" / "canary.json"
    rollout = Rollouts(path, SECRET).of("one")
    assert rollout.start(EAGER, "ann", "")
    assert rollout.pairs("fooled", [1, 2, 3, 4], "a")
    again = Rollouts(path, SECRET).of("one")
    assert (again.state, again.weight) == ("running", 5)
    assert again.tallies["fooled"].counts == [1, 2, 3, 4]
    # Another version begins anew, and one that is out of the file is forgotten.
    assert Rollouts(path, SECRET).of("two").state == "off"
    rollouts = Rollouts(path, SECRET)
    rollouts.only(["two"])
    assert Rollouts(path, SECRET).of("one").state == "off"


DAMAGED = (
    "nonsense",
    "[]",
    '{"a": {}}',
    '{"a": {"state": "odd", "weight": 5}}',
    '{"a": {"state": "running", "weight": 500}}',
    '{"a": {"state": "rolled_back", "weight": 5}}',
)


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_is_one_line_with_its_fix(tmp_path: Path, text: str) -> None:
    path = tmp_path / "canary.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"canary\.json cannot be read; restore the file, or"):
        Rollouts(path, SECRET)


def test_without_a_disk_it_rolls_back_and_never_goes_on() -> None:
    world = World(ONLY_ERRORS).started()
    full = True

    def keep(told: dict[str, Any]) -> None:
        if full:
            raise ConfigError("no room")
        world.kept.append(told)

    world.rollout._keep = keep
    world.traffic(3000)
    with pytest.raises(OperationError, match="cannot be written"):
        world.pass_(2)
    assert (world.rollout.state, world.rollout.weight) == ("frozen", 5)
    assert world.rollout.rollback("ann", "no disk")
    assert world.rollout.weight == 0
    assert world.kept[-1]["weight"] == 5
    full = False
    world.pass_(1)
    # What could not be written is written as soon as it can be.
    assert (world.kept[-1]["state"], world.kept[-1]["weight"]) == ("rolled_back", 0)
