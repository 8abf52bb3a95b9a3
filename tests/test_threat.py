"""Regions, goals and threats against closed forms."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from withstand import WithstandError, _errors, threat
from withstand.threat import (
    L0,
    L1,
    L2,
    Box,
    Budget,
    Evading,
    Frozen,
    Linf,
    Mask,
    MultiLabel,
    Regression,
    Targeted,
    Threat,
    Untargeted,
)
from withstand.threat.tabular import Capability, Feature, Relation

X = np.zeros((2, 3))
MOVED = np.array([[3.0, 4.0, 0.0], [0.0, 1.0, 0.0]])


def test_exported_names_are_sorted_and_exist() -> None:
    constants = [n for n in threat.__all__ if n.isupper()]
    assert threat.__all__ == sorted(constants) + sorted(set(threat.__all__) - set(constants))
    assert all(hasattr(threat, name) for name in threat.__all__)


@pytest.mark.parametrize(
    ("ball", "distances"),
    [(Linf, [4.0, 1.0]), (L2, [5.0, 1.0]), (L1, [7.0, 1.0]), (L0, [2.0, 1.0])],
)
def test_distances_and_boundary_belongs_to_the_ball(ball: type, distances: list[float]) -> None:
    assert ball.distance(X, MOVED).tolist() == distances
    assert ball(np.array(distances)).contains(X, MOVED).all()
    assert not ball(np.nextafter(distances, -1)).contains(X, MOVED).any()


def test_regions_compose_and_follow_their_samples() -> None:
    region = Linf(np.array([5.0, 0.5])) & Box(-1, 3.5) & Frozen((2,))
    assert region.contains(X, MOVED).tolist() == [False, False]
    assert (region & L0(9)).contains(X, np.minimum(MOVED, 0.5)).tolist() == [True, True]
    assert region.take([1]).contains(X[:1], MOVED[1:]).tolist() == [False]
    assert Mask(np.array([1, 1, 0])).contains(X, MOVED).all()
    assert Mask(np.array([0, 1, 1])).contains(X, MOVED).tolist() == [False, True]


def test_masks_and_boxes_of_each_sample_follow_it() -> None:
    free = np.array([[1, 1, 0], [0, 0, 1], [0, 1, 0]])
    x, moved = np.zeros((3, 3)), np.eye(3)[[0, 2, 1]]
    region = Mask(free) & Box(-1, np.array([[1.0], [0.5], [2.0]])) & Linf(np.inf)
    assert region.contains(x, moved).tolist() == [True, False, True]
    for rows in ([2, 1, 0], [1], [0, 0, 2, 1], np.array([False, True, True])):
        part = region.take(rows)
        assert part.contains(x[rows], moved[rows]).tolist() == (
            region.contains(x, moved)[rows].tolist()
        )
        assert part.take([0]).contains(x[rows][:1], moved[rows][:1]).tolist() == [
            region.contains(x, moved)[rows][0]
        ]
    assert Mask(free).take([1, 0]).contains(x[:2], moved[:2]).tolist() == [False, False]
    assert Mask(free[0]).take([2]).contains(x[:1], moved[:1]).tolist() == [True]
    with pytest.raises(_errors.ThreatError, match=r"mask has shape \(3, 3\), the inputs \(2, 3\)"):
        Mask(free).contains(x[:2], moved[:2])


def test_a_radius_that_is_no_number_is_told() -> None:
    with pytest.raises(_errors.ThreatError, match=r"eps is '8/255'; give a number such as 8 / 255"):
        Linf("8/255")  # type: ignore[arg-type]


def test_unbounded_keeps_the_rest_of_the_region() -> None:
    free = Threat(region=L2(1.0) & Box(0, 3.5)).unbounded()
    assert not free.bounded
    assert free.norm == "l2"
    assert free.region.contains(X, MOVED).tolist() == [False, True]


@pytest.mark.parametrize(
    ("goal", "y"),
    [
        (Untargeted(), torch.tensor([0, 2])),
        (Targeted(1), torch.tensor([0, 2])),
        (MultiLabel(2), torch.tensor([[1, 0, 0], [0, 0, 1]])),
    ],
)
def test_margin_is_positive_exactly_while_the_goal_is_missed(goal: object, y: torch.Tensor) -> None:
    torch.manual_seed(0)
    for _ in range(200):
        scores = torch.randn(2, 3)
        hit = goal.hit(goal.decide(scores), y)  # type: ignore[attr-defined]
        assert torch.equal(goal.margin(scores, y) < 0, hit)  # type: ignore[attr-defined]


def test_regression_direction() -> None:
    y, answer = torch.tensor([0.0, 0.0]), torch.tensor([2.0, -2.0])
    assert Regression(1.0).hit(answer, y).tolist() == [True, True]
    assert Regression(1.0, direction="up").hit(answer, y).tolist() == [True, False]
    assert Regression(1.0).margin(answer[:, None], y).tolist() == [-1.0, -1.0]


def test_evading_needs_both() -> None:
    goal, y = Evading(Untargeted()), torch.tensor([0, 0, 0])
    scores = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, -1.0], [1.0, 0.0, 1.0]])
    assert goal.hit(goal.decide(scores), y).tolist() == [True, False, False]
    assert (goal.margin(scores, y) < 0).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Linf(-1), "at least 0"),
        (lambda: L2(float("nan")), "at least 0"),
        (lambda: Box(1, 0), "lower <= upper"),
        (lambda: Threat(region=Box(0, 1)), "no norm"),
        (lambda: Threat(region=Linf(1), access="telepathy"), "gradients, scores, labels, none"),  # type: ignore[arg-type]
        (lambda: Threat(region=Linf(1), queries=0), "at least 1"),
        (lambda: Budget(seconds=0), "more than 0"),
        (lambda: Regression(0.1, "upwards"), "up, down or any"),
        (lambda: Regression(-0.1), "at least 0"),
        (lambda: MultiLabel(0), "at least 1 label"),
        (lambda: Targeted(-1), "from 0 on"),
    ],
)
def test_errors_tell_the_limit_in_one_line(make: object, words: str) -> None:
    with pytest.raises(_errors.WithstandError, match=words) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_a_regions_content_is_the_same_in_every_process() -> None:
    text = (
        "import numpy as np\n"
        "from withstand.threat import Box, Linf, Mask\n"
        "from withstand.threat.tabular import Capability, Feature, Relation\n"
        "table = Capability(features=(Feature(name='a', upper=5.0), Feature(name='b')),\n"
        "    relations=(Relation.read('a <= b', ['a', 'b']),))\n"
        "region = Linf(0.1) & Box(0, 1) & Mask(np.array([True, False])) & table\n"
        "print(b''.join(part.content() for part in region).hex())\n"
    )
    command = [sys.executable, "-c", text]
    told = {subprocess.run(command, capture_output=True, text=True).stdout for _ in range(2)}
    assert len(told) == 1
    assert len(told.pop()) > 200


def test_regions_that_differ_in_a_rule_differ_in_content() -> None:
    features = (Feature(name="a", upper=5.0), Feature(name="b"))
    table = Capability(features=features)
    related = replace(table, relations=(Relation.read("a <= b", ["a", "b"]),))
    dearer = replace(table, features=(replace(features[0], cost=1.0), features[1]))
    assert len({one.content() for one in (table, related, dearer, Linf(1.0), L2(1.0))}) == 5
    row, column = (Mask(np.array([True, False]).reshape(shape)) for shape in ((1, 2), (2, 1)))
    assert row.content() != column.content()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Threat(region=Linf(0.1), queries=1.5), "queries is 1.5; give a whole number"),  # type: ignore[arg-type]
        (lambda: Threat(region=0.1), "region is 0.1; give one, such as Linf"),  # type: ignore[arg-type]
        (lambda: Threat(region=Linf(0.1), goal="any"), "goal is 'any'; give one"),  # type: ignore[arg-type]
        (lambda: Targeted(np.array([1, 2])), "give one class for all samples"),  # type: ignore[arg-type]
        (lambda: Targeted("1"), "target is '1'; give one class"),  # type: ignore[arg-type]
        (lambda: Targeted(True), "target is True"),
        (lambda: Linf(np.full(5, 0.1)).check(np.zeros((8, 3))), "5 radii for 8 inputs"),
        (
            lambda: (Linf(1) & Frozen((3,))).check(np.zeros((8, 3))),
            "feature 3 is frozen, the inputs",
        ),
        (lambda: Frozen((-1,)).check(np.zeros((8, 3))), "give 0 to 2"),
    ],
)
def test_what_no_threat_is_made_of_is_told_in_one_line(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(WithstandError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_target_may_be_a_whole_number_of_numpy() -> None:
    assert Targeted(np.int64(3)).target == 3  # type: ignore[arg-type]
    assert Evading().describe() == "any wrong class, unseen by the detector"
