"""Searches are flagged by the sensors of a guard, and benign optimisers are not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guarding import Named, v2_answer
from processes import withstand
from sklearn.datasets import load_digits

from withstand._errors import DataError
from withstand.guard import Answer, Guard, Key, Line, Request
from withstand.guard.answers import Answered, Output
from withstand.guard.queries import (
    Calibration,
    QuerySensor,
    SearchSensor,
    calibrate,
    query_sensors,
    read_queries,
)
from withstand.guard.queries._sensor import _told
from withstand.guard.wire import Limits, read_v2


@pytest.fixture(scope="module")
def images() -> Any:
    return load_digits().images.astype(np.float32).reshape(-1, 64) / 16


@pytest.fixture(scope="module")
def calibration(images: Any) -> Calibration:
    return calibrate(images[:1400], rate=1e-3, seed=3)


def near_copies(x: Any, count: int, size: float = 0.01) -> Any:
    rng = np.random.default_rng(0)
    return (x + size * rng.standard_normal((count, x.size))).astype(np.float32)


class Halves:
    """A model of two classes: the brighter half of a picture."""

    async def ask(self, method: str, target: str, headers: Any, body: bytes = b"") -> Answer:
        x = read_v2(body, None, Limits()).inputs[0].values
        right = np.full(len(x), 0.5)
        if x.dtype.kind == "f":
            right = 1 / (1 + np.exp(x[:, :32].sum(1) - x[:, 32:].sum(1)))
        return Answer(200, [], v2_answer(np.stack((1 - right, right), 1)))

    def close(self) -> None:
        pass


class Guarded:
    """A guard with both sensors, and the signals of the last request."""

    required = failing = False

    def __init__(self, calibration: Calibration, mode: Any = "shadow", **told: Any) -> None:
        self.queries = QuerySensor(calibration, **told)
        self.access, self.model = Named(), Halves()
        sensors = (self.queries, SearchSensor(self.queries))
        line = Line(mode=mode, upstream=self.model, sensors=sensors)
        self.guard = Guard({"m": line}, access=self.access, journal=self)

    def note(self, content: dict[str, Any], **_: Any) -> bool:
        self.signals = content.get("signals", [])
        self.habit: dict[str, float] | None = content.get("habit")
        return True

    def flush(self, timeout: float = 10.0) -> bool:
        return True

    def close(self) -> None:
        pass

    def ask(self, x: Any, datatype: str = "FP32") -> tuple[int, frozenset[str]]:
        """The status, and who flagged the request."""
        data = x if datatype == "BYTES" else np.asarray(x, float).ravel().tolist()
        shape = [len(data)] if datatype == "BYTES" else list(x.shape)
        tensor = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
        body = json.dumps({"inputs": [tensor]}).encode()
        request = Request("POST", "/v2/models/m/infer", [], body)
        answer = asyncio.run(self.guard.answer(request))
        return answer.status, frozenset(one[0] for one in self.signals if one[3])


def test_both_sensors_see_a_search_through_the_guard(images: Any, calibration: Calibration) -> None:
    guarded = Guarded(calibration)
    border = images[1500].reshape(2, 32)
    border = np.tile(border.mean(0), 2)  # both halves alike
    flags = [guarded.ask(x[None])[1] for x in near_copies(border, 60)]
    first = [
        next(i for i, one in enumerate(flags) if name in one) for name in ("queries", "search")
    ]
    assert first[0] < first[1] < 60
    assert not any(guarded.ask(x[None])[1] for x in images[1510:1560])


def test_a_flag_tells_how_the_client_asks(images: Any, calibration: Calibration) -> None:
    guarded = Guarded(calibration)
    guarded.ask(images[1500][None])
    assert guarded.habit is None
    for x in near_copies(images[1500], 60):
        guarded.ask(x[None])
    habit = guarded.habit
    assert habit is not None
    assert habit["queries"] == 61
    assert habit["near"] > 0.9
    assert habit["entropy"] < 0.5
    assert habit["rate"] > 1


@pytest.mark.parametrize(
    ("action", "search"), [("tag", "coarsen"), ("coarsen", "coarsen"), ("block", "block")]
)
def test_a_search_is_at_least_answered_coarsely(
    calibration: Calibration, tmp_path: Path, action: str, search: str
) -> None:
    calibration.save(tmp_path / "told")
    found = query_sensors(tmp_path / "told", action=action)
    assert [one.action for one in found[:2]] == [action, search]


def test_a_batch_is_seen_one_after_the_other(images: Any, calibration: Calibration) -> None:
    guarded = Guarded(calibration)
    assert guarded.ask(near_copies(images[1500], 40))[1] >= {"queries"}
    assert guarded.queries.watch.habit("t", "k").queries == 40
    # Near copies in the last rows only: each has those before it.
    guarded.ask(np.concatenate((images[:50], near_copies(images[1600], 3, 1e-4))))
    assert guarded.signals[0][1] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("classes", [2, 10, 64, 65])
def test_the_class_and_the_margin_are_those_of_the_two_highest_scores(classes: int) -> None:
    scores = np.random.default_rng(0).integers(0, 8, (40, classes)) / 8
    output = Output("scores", "FP64", scores)
    found = _told(Answered(answer=Answer(200, [], b""), form="v2", outputs=(output,)))
    ranked = np.sort(scores, 1)
    assert [label for label, _ in found] == scores.argmax(1).tolist()
    assert [margin for _, margin in found] == (ranked[:, -1] - ranked[:, -2]).tolist()


def test_the_command_calibrates(images: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "benign.npz", x=images)
    words = ("guard", "calibrate-queries", "benign.npz", "--rate", "0.001")
    done = withstand(*words, "--output", "told", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = Calibration.load(tmp_path / "told")
    told = json.loads(done.stdout)
    assert (told["threshold"], told["bound"]) == (found.threshold, found.bound)
    assert (told["shown"], told["enough"]) == (found.bound <= 0.001, 3994)
    done = withstand(*words, "--output", "told", folder=tmp_path)
    assert (done.returncode, "is already there; use --force" in done.stderr) == (2, True)
    done = withstand(*words, "--rate", "0.0001", "--output", "told", "--force", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "do not show the 1 in 10,000 that were asked for; give 35,956\n" in done.stdout
    done = withstand(*words, "--array", "z", folder=tmp_path)
    assert (done.returncode, "no array 'z'; it has x" in done.stderr) == (2, True)
    assert not (tmp_path / "queries").exists()


def test_what_holds_no_queries_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not there"):
        read_queries(tmp_path / "x.npy")
    for name, content in {"objects": np.array([[{}]]), "flat": np.ones(9),
                          "nan": np.full((3, 2), np.nan)}.items():  # fmt: skip
        np.save(tmp_path / f"{name}.npy", content, allow_pickle=True)
        with pytest.raises(DataError, match="numbers"):
            read_queries(tmp_path / f"{name}.npy")


def test_a_declared_optimiser_is_scored_and_never_flagged(
    images: Any, calibration: Calibration
) -> None:
    guarded = Guarded(calibration, mode="enforce", action="block")
    declared = Key(id="explainer", tenant="t", benign_optimiser=True)
    guarded.access.key = Key(id="other", tenant="t")
    guarded.ask(images[:1])
    guarded.access.key = declared
    for x in near_copies(images[1500], 80):
        assert guarded.ask(x[None]) == (200, frozenset())
    assert guarded.signals[0][1] > calibration.threshold
    # Another client of the tenant may ask about the same.
    guarded.access.key = Key(id="k", tenant="t")
    for x in near_copies(images[1500], 2, 0.02):
        assert guarded.ask(x[None]) == (200, frozenset())
    guarded.access.key = Key(id="x", tenant="t", benign_optimiser=False)
    found = [guarded.ask(x[None])[0] for x in near_copies(images[1600], 40)]
    assert found[-1] == 403


def test_the_threshold_is_another_for_each_query_and_never_lower(
    images: Any, calibration: Calibration
) -> None:
    guarded = Guarded(calibration, jitter=0.5)
    told = []
    for x in near_copies(images[1500], 40):
        guarded.ask(x[None])
        _, score, threshold, flagged, _ = guarded.signals[0]
        assert flagged == (score > threshold)
        told.append(threshold / calibration.threshold)
    assert 1 <= min(told) < 1.2 < max(told) <= 1.5


def test_what_does_not_fit_is_told_or_left_alone(images: Any, calibration: Calibration) -> None:
    guarded = Guarded(calibration)
    guarded.ask(images[:1, :40])
    assert guarded.signals[0][4] == "shape"
    for size in (1e38, 1e300):
        guarded.ask(np.full((1, 64), size), "FP64")
        assert guarded.signals[0][1:] == [0.0, guarded.signals[0][2], False, ""]
    guarded.ask(images[:1])
    assert guarded.signals[0][1] == 0
    guarded.ask(["a", "b"], "BYTES")
    assert guarded.signals == []
