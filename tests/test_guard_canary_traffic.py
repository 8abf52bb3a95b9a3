"""What the traffic of two arms shows: classes and confidences too, in pairs that are fair."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from withstand.guard import Answer
from withstand.guard.answers import read_answer
from withstand.guard.canary import (
    MARGINS,
    SEEN,
    Judgement,
    Labels,
    Margin,
    Rollout,
    Settings,
    Tally,
    judge,
)
from withstand.guard.canary._traffic import Traffic

ARMS = ("canary", "control", "stable")
SETTINGS = Settings(
    slow=0.2, least=0.5, patience=1e9, margins={name: MARGINS[name] for name in ("labels",)}
)


def started(limits: Settings = SETTINGS, **told: Any) -> Rollout:
    rollout = Rollout(secret=b"s" * 32, **told)
    assert rollout.start(limits, "ann", "")
    return rollout


def seen(arm: str, label: int | None = None, confidence: float | None = None) -> dict[str, Any]:
    return {
        "arm": arm, "status": 200, "seconds": 0.01, "flagged": False, "label": label,
        "confidence": confidence,
    }  # fmt: skip


def judged(rollout: Rollout, limits: Settings = SETTINGS) -> dict[str, Any]:
    return dict(rollout.told(limits)["compared"])


requests = st.lists(
    st.tuples(
        st.sampled_from(ARMS), st.sampled_from([200, 200, 404, 500, 0]),
        st.sampled_from([0.001, 0.01, 0.5]), st.booleans(), st.integers(0, 3),
    ),
    max_size=80,
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(requests, st.integers(0, 80))
def test_pairs_of_whole_requests_are_the_pairs_of_each_indicator(
    stream: list[tuple[str, int, float, bool, int]], looked: int
) -> None:
    rollout, plain = started(), {name: Tally() for name in ("errors", "flagged")}
    counts: dict[str, Counter[str]] = {arm: Counter() for arm in ARMS}
    for n, (arm, status, seconds, flagged, label) in enumerate(stream):
        if n == looked:
            # A look in between changes nothing.
            rollout.told(SETTINGS)
        failed = not 0 < status < 400
        rollout.saw(
            arm, replace(SETTINGS, failures=10**6), status=status, seconds=seconds,
            flagged=flagged, label=None if failed else label,
        )  # fmt: skip
        counts[arm].update(requests=1, errors=failed, flagged=flagged)
        if arm != "stable":
            plain["errors"].saw(arm, failed)
            plain["flagged"].saw(arm, flagged)
    for name, tally in plain.items():
        assert rollout.tallies[name].counts == tally.counts
    for arm, one in rollout.arms.items():
        assert [one.requests, one.errors, one.flagged] == [
            counts[arm][name] for name in ("requests", "errors", "flagged")
        ]
        sound = [row for row in stream if row[0] == arm and 0 < row[1] < 400]
        wanted = Counter(str(row[4]) for row in sound) if arm != "stable" else {}
        assert one.labels == wanted


def test_an_indicator_counts_the_pairs_in_which_it_is_known() -> None:
    rollout = started()
    for canary, control in ((-1, 200), (500, 200), (200, 200), (200, -1)):
        for arm, status in (("control", control), ("canary", canary)):
            rollout.saw(arm, SETTINGS, status=status, seconds=0.01, flagged=arm == "canary")
    counts = {name: tally.counts for name, tally in rollout.tallies.items()}
    assert counts["flagged"] == [0, 4, 0, 0]
    assert counts["errors"] == [0, 1, 0, 1]
    assert counts["slow"] == [0, 0, 0, 1]
    assert counts["unsure"] == [0, 0, 0, 0]


def test_of_many_that_wait_the_oldest_go_first() -> None:
    rollout = started()
    for n in range(1500):
        rollout.saw("control", SETTINGS, status=500 if n < 500 else 200, seconds=0.01, flagged=None)
    for _ in range(2000):
        rollout.saw("canary", SETTINGS, status=200, seconds=0.01, flagged=None)
    assert rollout.tallies["errors"].counts == [0, 0, 0, 1000]


def test_a_step_begins_with_no_pair_and_nothing_that_waits() -> None:
    traffic = Traffic()
    for arm in ("canary", "control", "control"):
        traffic.saw(arm, 200, 0.01, False, None, 3, 0.9)
    traffic.anew()
    assert traffic.labels.n == 0
    assert not any(tally.n for tally in traffic.tallies.values())
    # The second of the control arm was about to be paired.
    traffic.saw("canary", 200, 0.01, False, None, 3, 0.9)
    traffic.settle()
    assert not any(tally.n for tally in traffic.tallies.values())
    assert [traffic.arms[arm].requests for arm in ("canary", "control")] == [2, 2]
    assert traffic.arms["canary"].labels == {"3": 2}


def test_what_a_restart_finds_is_what_was_seen() -> None:
    kept: list[str] = []
    rollout = started(keep=lambda told: kept.append(json.dumps(told)))
    numbers = random.Random(3)
    for _ in range(500):
        for arm in ("canary", "control"):
            rollout.saw(settings=SETTINGS, **seen(arm, numbers.randrange(30), numbers.random()))
    rollout.freeze("ann", "")
    again = Rollout(json.loads(kept[-1]), secret=b"s" * 32)
    assert again.told(SETTINGS) == rollout.told(SETTINGS)
    for one in (rollout, again):
        for arm in ("canary", "control"):
            one.saw(settings=SETTINGS, **seen(arm, 7, 0.01))
    assert again.told(SETTINGS) == rollout.told(SETTINGS)


def of_pairs(pairs: dict[tuple[int, int], int]) -> Labels:
    labels = Labels()
    for (one, other), n in pairs.items():
        labels.add(labels.place(one), labels.place(other), n)
    return labels


def judged_labels(pairs: dict[tuple[int, int], int], **margin: float) -> Judgement:
    limits = replace(SETTINGS, margins={"labels": replace(MARGINS["labels"], **margin)})
    return judge({"labels": of_pairs(pairs)}, limits)["labels"]


def test_classes_are_compared_one_by_one_in_both_directions() -> None:
    equal = {(0, 0): 300, (0, 1): 300, (1, 0): 300, (1, 1): 300}
    assert judged_labels(equal).verdict == "pass"
    assert judged_labels(equal, least=1201).verdict == "inconclusive"
    assert judged_labels({}).verdict == "inconclusive"
    assert judged_labels({}).better == judged_labels({}).worse == 0.0
    # A third class that the canary alone knows, and one that it has forgotten.
    for pairs, label in (
        ({**equal, (7, 0): 150, (7, 1): 150}, "7"), ({**equal, (0, 7): 150, (1, 7): 150}, "7"),
    ):  # fmt: skip
        found = judged_labels(pairs)
        assert (found.verdict, found.label) == ("fail", label)
        told = found.told()
        assert {told["canary"]["value"], told["control"]["value"]} == {0.0, 0.2}
        assert judged_labels(pairs, more=0.4).verdict == "pass"
    # One class that is not known yet is enough to wait, however equal the others are.
    waits = judged_labels({(0, 0): 550, (1, 1): 550, (7, 0): 50, (7, 1): 50})
    assert (waits.verdict, waits.label) == ("inconclusive", "7")
    assert judged_labels({(0, 0): 550, (1, 1): 550}).verdict == "pass"
    # Each class is a test of its own, in each of the two directions: 21 places at most.
    only = judged_labels(equal)
    assert only.passes == pytest.approx(math.log(4 / 0.05))
    assert only.fails == pytest.approx(math.log(2 * 2 * 4 * 42 / 0.05))


def test_the_rows_of_a_class_are_what_counting_by_hand_gives() -> None:
    numbers = np.random.default_rng(0)
    drawn = numbers.integers(0, 30, (2000, 2))
    labels = Labels()
    for one, other in drawn.tolist():
        labels.add(labels.place(one), labels.place(other))
    order = list(dict.fromkeys(drawn.ravel().tolist()))
    own = order[:20]
    for name, row in labels.rows().items():
        holds = np.isin(drawn, order[20:]) if name == "other" else drawn == int(name)
        assert row == (
            int((holds[:, 0] & holds[:, 1]).sum()), int((holds[:, 0] & ~holds[:, 1]).sum()),
            int((~holds[:, 0] & holds[:, 1]).sum()), int((~holds).all(1).sum()),
        )  # fmt: skip
    assert set(labels.rows()) == {str(one) for one in own} | {"other"}
    assert labels.n == 2000


@pytest.mark.parametrize(("shift", "state"), [(0.0, "promoted"), (0.25, "rolled_back")])
def test_a_version_that_answers_otherwise_is_rolled_back(shift: float, state: str) -> None:
    clock = [0.0]
    rollout, numbers = started(clock=lambda: clock[0]), random.Random(1)
    for _ in range(40):
        for _ in range(400):
            for arm, share in (("canary", 0.3 + shift), ("control", 0.3)):
                label = 1 if numbers.random() < share else 0
                rollout.saw(settings=SETTINGS, **seen(arm, label, 0.9))
        clock[0] += 1
        rollout.consider(SETTINGS)
        if rollout.state != "running":
            break
    assert rollout.state == state
    if state == "rolled_back":
        assert rollout.why == "worse in labels"


def test_confidence_is_measured_by_what_the_control_arm_had_at_first() -> None:
    limits = replace(SETTINGS, margins={"unsure": MARGINS["unsure"]})
    rollout, numbers = started(limits), random.Random(2)
    for n in range(2500):
        for arm, least in (("canary", 0.0), ("control", 0.5)):
            rollout.saw(settings=limits, **seen(arm, 0, least + (1 - least) * numbers.random()))
        if n == 90:
            assert rollout.tallies["unsure"].n == 0
    found = judged(rollout, limits)["unsure"]
    assert found["verdict"] == "fail"
    # A tenth of the control arm's is below about 0.55, and 55 % of the canary's.
    assert found["control"]["low"] < 0.15
    assert found["canary"]["value"] == pytest.approx(0.55, abs=0.05)
    told = rollout.told(limits)["arms"]
    assert told["canary"]["mean_confidence"] == pytest.approx(0.5, abs=0.03)
    assert told["control"]["mean_confidence"] == pytest.approx(0.75, abs=0.03)
    assert told["canary"]["labels"] == {"0": 2500}
    assert told["stable"]["mean_confidence"] is None
    assert 2350 <= told["canary"]["unsure"]["tried"] <= 2500


def test_what_is_compared_by_default_did_not_grow() -> None:
    assert set(Settings().margins) == {"fooled", "errors", "slow"}
    assert {"labels", "unsure"} <= set(SEEN)
    assert MARGINS["labels"] == Margin(ratio=1.0, more=0.1)


def answered(*outputs: dict[str, Any], status: int = 200) -> tuple[int | None, float | None]:
    body = json.dumps({"model_name": "m", "outputs": list(outputs)}).encode()
    answer = Answer(status, [(b"content-type", b"application/json")], body)
    return read_answer(answer, "v2").first()


def test_the_first_row_of_an_answer_has_a_class_and_perhaps_a_score() -> None:
    scores = {"name": "p", "datatype": "FP64", "shape": [2, 3], "data": [0.1, 0.7, 0.2, 1, 0, 0]}
    whole = {"name": "y", "datatype": "INT64", "shape": [2], "data": [4, 0]}
    assert answered(scores) == (1, pytest.approx(0.7))
    assert answered(whole) == (4, None)
    assert answered({"name": "r", "datatype": "FP32", "shape": [1], "data": [0.5]}) == (None, None)
    assert answered({"name": "y", "datatype": "INT64", "shape": [0], "data": []}) == (None, None)
