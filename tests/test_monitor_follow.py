"""Evidence is counted once each, whatever becomes of log, process, clock and permission."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guarding import Model, scores, v2_body
from monitoring import NOW, Written, decision
from processes import script

from withstand._errors import EvidenceError, OperationError
from withstand.config import CampaignsConfig
from withstand.evidence.log import Log, Retention, retain
from withstand.guard import Call, EvidenceJournal, Guard, Line, Request, Sensor, Signal
from withstand.monitor import Alerts, Counts, Followed, Follower, Store
from withstand.monitor._figures import variance
from withstand.monitor.follow import _follower


def follower(folder: Path, **told: Any) -> Follower:
    return Follower(
        Store(folder / "store"),
        folder / "log",
        **{"clock": lambda: NOW + 100.0, "models": frozenset({"m", "other"}), **told},
    )


def caught_up(one: Follower) -> Followed:
    while (found := one.step()[0]).behind:
        pass
    return found


def totals(folder: Path, model: str = "") -> dict[str, tuple[int, int]]:
    counts = Counts(Store(folder / "store"))
    return {sli: counts.total(sli, model) for sli in ("M5", "M7")}


def test_a_decision_counts_for_what_was_looked_at(tmp_path: Path) -> None:
    log = Written(tmp_path / "log")
    log.add(
        decision(1),
        decision(2, flagged=["detector"]),
        decision(3, flagged=["queries", "detector"]),
        decision(4, spoke=["queries"]),
        decision(5, spoke=[], model="other"),
        decision(6, signals=[["detector", 0.0, 0.5, False, "deadline"]]),
        decision(7, flagged=["search"], model="other"),
        decision(8, signals="redacted", answered=None, key=None),
    )
    log.add({"clean": True}, kind="close")
    found = caught_up(follower(tmp_path))
    assert (found.records, found.last) == (9, NOW + 9)
    # Who gave no score, or failed, has not looked: no event, and nothing good.
    assert totals(tmp_path) == {"M5": (4, 2), "M7": (5, 2)}
    assert totals(tmp_path, "other") == {"M5": (1, 0), "M7": (1, 1)}
    moments = Counts(Store(tmp_path / "store")).moments(0)
    assert {name: one.n for name, one in moments.items()} == {"m": 5, "other": 2}


class Above(Sensor):
    """Flags inputs whose first number is above a half."""

    action = "tag"

    def __init__(self, name: str) -> None:
        self.name = name

    def look(self, call: Call) -> Signal:
        score = float(call.asked.inputs[0].values.ravel()[0])
        return Signal(self.name, score, 0.5, score > 0.5)


def test_records_of_a_guard_are_read_as_it_writes_them(tmp_path: Path) -> None:
    line = Line(upstream=Model(), mode="shadow", sensors=[Above("queries")])
    journal = EvidenceJournal(Log(tmp_path / "log"), inputs="none")
    guard = Guard({"m": line}, journal=journal)
    bodies = [v2_body([[n / 10, 0, 0, 0]]) for n in range(10)] + [b"{}"]
    for body in bodies:
        request = Request("POST", "/v2/models/m/infer", [], body)
        asyncio.run(guard.answer(request))
    guard.close()
    one = follower(tmp_path, clock=time.time)
    # With those of the beginning and the end; what could not be read was not looked at.
    assert caught_up(one).records == 13
    assert totals(tmp_path, "m") == {"M5": (0, 0), "M7": (10, 4)}
    moments = Counts(Store(tmp_path / "store")).moments(0)["m"]
    best = [float(scores(np.array([[n / 10, 0, 0, 0]])).max()) for n in range(10)]
    assert moments.n == 10
    assert moments.s1 / 10 == pytest.approx(np.mean(best), rel=1e-3)
    assert set(one.latest) == {"M7 ", "M7 m"}


def test_what_was_asked_with_permission_does_not_count(tmp_path: Path) -> None:
    log = Written(tmp_path / "log")
    log.add(*(decision(n, flagged=["queries"], experiment="x", probe="1") for n in range(50)))
    log.add(decision(99))
    one = follower(tmp_path)
    caught_up(one)
    assert totals(tmp_path) == {"M5": (1, 0), "M7": (1, 0)}
    (campaign,) = Alerts(Store(tmp_path / "store")).campaigns()
    assert (campaign.experiment, campaign.flagged) == ("x", 50)


def test_models_that_clients_make_up_have_no_figures_of_their_own(tmp_path: Path) -> None:
    log = Written(tmp_path / "log")
    log.add(*(decision(n, model=f"m{n}") for n in range(100)))
    caught_up(follower(tmp_path, models=frozenset({"m1"})))
    rows = Store(tmp_path / "store").rows("SELECT DISTINCT model FROM counts ORDER BY model")
    assert [row["model"] for row in rows] == ["", "m1"]
    assert totals(tmp_path)["M5"] == (100, 0)


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_every_record_counts_once_across_segments_and_restarts(tmp_path: Path, most: int) -> None:
    log, seen = Written(tmp_path / "log", each=4), 0
    for n in range(30):
        log.add(decision(n, flagged=["queries"] if n % 3 == 0 else []))
        if n % 7 == 0:
            # A new one each time, as after a restart.
            one = follower(tmp_path, most=most)
            seen += one.step()[0].records
    one = follower(tmp_path, most=most)
    while (found := one.step()[0]).records:
        seen += found.records
    assert seen == 30
    assert totals(tmp_path) == {"M5": (30, 0), "M7": (30, 10)}


def test_half_a_line_is_not_there_yet(tmp_path: Path) -> None:
    log = Written(tmp_path / "log")
    log.add(decision(1))
    line = log.line(decision(2))
    one = follower(tmp_path)
    for end in (1, len(line) // 2, len(line) - 1):
        log.segment.write_bytes(log.segment.read_bytes() + line[:end])
        found, _ = one.step()
        assert (found.records, found.broken) == (int(end == 1), "")
        log.segment.write_bytes(log.segment.read_bytes()[:-end])
    log.segment.write_bytes(log.segment.read_bytes() + line)
    assert one.step()[0].records == 1


def test_a_change_is_told_as_long_as_it_is_there(tmp_path: Path) -> None:
    log = Written(tmp_path / "log")
    log.add(decision(1))
    one = follower(tmp_path)
    assert one.step()[0].broken == ""
    before = log.segment.stat().st_size
    log.add(decision(2), decision(3))
    whole = log.segment.read_bytes()
    log.segment.write_bytes(whole[:before] + whole[before:].replace(b"acme", b"evil", 1))
    for _ in range(2):
        found, _ = one.step()
        assert "its hash is not that of its content" in found.broken
        assert found.records == 0
    log.segment.write_bytes(whole)
    assert (one.step()[0].records, totals(tmp_path)["M5"]) == (2, (3, 0))


def test_a_log_that_was_cut_back_is_told_and_gone_on_with(tmp_path: Path) -> None:
    log = Written(tmp_path / "log")
    log.add(decision(1))
    first, head = log.segment.read_bytes(), log.head
    log.add(decision(2), decision(3))
    one = follower(tmp_path)
    assert one.step()[0].records == 3
    log.head = head
    log.segment.write_bytes(first)
    log.add(decision(4), decision(5), decision(6), decision(7))
    found, _ = one.step()
    assert "no longer there" in found.broken
    # What was cut off had been counted, and what came instead is new.
    assert (found.records, totals(tmp_path)["M5"]) == (4, (7, 0))
    assert one.step()[0] == Followed(last=found.last)


def test_a_log_that_was_begun_anew_is_told_and_counted(tmp_path: Path) -> None:
    log = Written(tmp_path / "log", each=4)
    log.add(*(decision(n) for n in range(30)))
    one = follower(tmp_path)
    assert caught_up(one).records == 30
    for path in log.folder.iterdir():
        path.unlink()
    assert one.step()[0] == Followed(last=NOW + 30)
    new = Written(tmp_path / "log", each=2, wall=log.wall)
    new.add(*(decision(n) for n in range(10)))
    found, _ = one.step()
    assert "no longer there" in found.broken
    assert (found.records, totals(tmp_path)["M5"]) == (10, (40, 0))


def test_what_is_purged_unread_is_counted_as_lost(tmp_path: Path) -> None:
    with Log(tmp_path / "log", segment_bytes=2000) as log:
        one = follower(tmp_path)
        for n in range(40):
            log.append(decision(n))
            log.flush()
            if n == 9:
                read = caught_up(one).records
        time.sleep(0.02)
        gone = retain(log, None, Retention(records=0.01))
        assert gone.records > 20
        found = caught_up(one)
    assert found.lost == gone.records - read
    assert found.broken == ""


def test_no_log_is_no_data(tmp_path: Path) -> None:
    assert follower(tmp_path).step() == (Followed(), [])
    assert totals(tmp_path) == {"M5": (0, 0), "M7": (0, 0)}


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 86_400.0])
def test_where_the_clock_is_set_windows_are_as_long_as_before(tmp_path: Path, jump: float) -> None:
    log = Written(tmp_path / "log")
    log.add(*(decision(n, flagged=["queries"]) for n in range(10)), after=60.0)
    log.wall += jump
    log.add(*(decision(n, flagged=["queries"]) for n in range(10, 15)), after=60.0)
    settings = CampaignsConfig(flags=10)
    found = caught_up(follower(tmp_path, clock=lambda: log.wall, campaigns=settings))
    assert found.jumps == 1
    (campaign,) = Alerts(Store(tmp_path / "store")).campaigns(open=True)
    assert (campaign.first, campaign.flagged) == (log.wall - 14 * 60, 15)
    counts = Counts(Store(tmp_path / "store"))
    buckets = counts.buckets("M7", since=log.wall - 20 * 60, until=log.wall + 60)
    # 15 minutes lie between the first and the last, as if nobody had touched the clock.
    assert sum(one.bad for one in buckets) == 15
    assert buckets[-1].start - buckets[0].start == pytest.approx(14 * 60, abs=60)
    assert follower(tmp_path).step()[0].jumps == 1


def test_a_clock_that_is_slewed_or_a_guard_that_restarts_is_no_jump(tmp_path: Path) -> None:
    log = Written(tmp_path / "log")
    log.add(decision(1))
    log.wall += 20.0
    log.add(decision(2))
    log.wall += 7200.0
    log.boot = "c" * 32
    log.add(decision(3))
    assert caught_up(follower(tmp_path)).jumps == 0


def test_groups_go_on_after_a_restart(tmp_path: Path) -> None:
    log = Written(tmp_path / "log")
    settings = CampaignsConfig(flags=20)
    for n in range(40):
        log.add(decision(n, flagged=["queries"]))
        # A new process for each record.
        _, changed = follower(tmp_path, campaigns=settings).step()
        assert len(changed) == (n >= 19)
    (campaign,) = Alerts(Store(tmp_path / "store")).campaigns()
    assert (campaign.flagged, campaign.distinct, campaign.requests) == (40, 40, 40)


KILLED = """
import os, signal
from pathlib import Path
from withstand.monitor import Follower, Store
from withstand.monitor.store import Memory

folder, moment = Path({folder!r}), {moment}
one = Follower(Store(folder / "store"), folder / "log", most=7, models=frozenset({{"m"}}))
keep, steps = Memory.within, []

def killed(file, name, told):
    steps.append(1)
    if len(steps) == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    keep(file, name, told)

Memory.within = staticmethod(killed)
while one.step()[0].behind:
    pass
"""


def test_a_process_that_is_killed_counts_nothing_twice(tmp_path: Path) -> None:
    log = Written(tmp_path / "log")
    log.add(*(decision(n, flagged=["queries"]) for n in range(30)))
    for moment in (1, 2, 3):
        done = script(KILLED.format(folder=str(tmp_path), moment=moment), tmp_path)
        assert done.returncode == -signal.SIGKILL
    caught_up(follower(tmp_path))
    assert totals(tmp_path) == {"M5": (30, 0), "M7": (30, 30)}
    (campaign,) = Alerts(Store(tmp_path / "store")).campaigns()
    assert campaign.flagged == 30


def test_two_that_follow_the_same_log_count_it_once(tmp_path: Path) -> None:
    log = Written(tmp_path / "log")
    one, other = follower(tmp_path), follower(tmp_path)
    for n in range(12):
        log.add(decision(n, flagged=["queries"]))
        if n % 3 == 0:
            assert caught_up(one).records >= 1
        elif n % 3 == 1:
            # The first one has gone on: nothing of this look counts, and it is taken again.
            assert other.step() == (Followed(behind=True), [])
            assert other.step()[0].records == 1
    caught_up(one)
    caught_up(other)
    assert totals(tmp_path)["M7"] == (12, 12)


def test_what_could_not_be_written_down_is_written_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Written(tmp_path / "log")
    log.add(*(decision(n) for n in range(5)))
    one = follower(tmp_path)

    def full(*told: object) -> None:
        raise OperationError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(_follower.Memory, "within", full)
        with pytest.raises(OperationError):
            one.step()
    assert totals(tmp_path)["M5"] == (0, 0)
    log.add(decision(6))
    assert one.step()[0].records == 6
    assert totals(tmp_path)["M5"] == (6, 0)


def test_a_log_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "log" / "00000001.log").mkdir(parents=True)
    with pytest.raises(EvidenceError, match=r"cannot be read: .*; let this user read it"):
        follower(tmp_path).step()


@pytest.mark.parametrize("score", [1e80, -1e300, float("inf"), float("nan"), 10**400])
def test_a_score_of_which_no_power_can_be_kept_is_no_confidence(
    tmp_path: Path, score: float
) -> None:
    log = Written(tmp_path / "evidence")
    log.add(decision(1, score=score), decision(2, score=3e38), decision(3, score=0.5))
    store = Store(tmp_path / "store")
    found, _ = Follower(store, tmp_path / "evidence").step()
    assert found.records == 3
    told = Counts(store).moments(0)[""]
    assert (told.n, told.s1) == (2, 3e38)
    assert math.isfinite(variance(told).high)
