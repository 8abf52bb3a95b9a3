"""Clients that copy the model: seen by how their queries spread, held to a budget of answers."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import numpy as np
import pytest
import torch
from guarding import Model, as_file, pictures, v2_body
from networks import DATA
from scipy.stats import shapiro

from withstand._errors import ConfigError, DataError
from withstand.guard import Call, Guard, Key, Ladder, Line, Request, Signal, Standing
from withstand.guard._reading import Reading
from withstand.guard._routes import Route
from withstand.guard.answers import Answered, Output
from withstand.guard.extraction import (
    AnswerBudget,
    ExtractionSensor,
    Prada,
    Settings,
    calibrated,
)
from withstand.guard.extraction._calibration import lowest_w
from withstand.guard.extraction._normality import shapiro_wilk
from withstand.guard.wire import Inference, Named
from withstand.stats import clopper_pearson

SETTINGS = Settings(fewest=60, last=150, points=150, features=32, every=5)
QUERIES = 150
CENTRES = np.random.default_rng(7).standard_normal((4, 40))
Array = np.ndarray[Any, Any]


def natural(n: int, seed: int) -> tuple[Array, Array]:
    """Draws around four centres, and the classes that a linear model gives them."""
    rng = np.random.default_rng(seed)
    x = CENTRES[rng.integers(0, 4, n)] + rng.standard_normal((n, 40))
    return x.astype(np.float32), (x @ CENTRES.T).argmax(1)


def augmented(n: int, seed: int) -> tuple[Array, Array]:
    """Forty natural ones, and from then on steps from earlier ones by the sign of the gradient."""
    x, y = natural(40, seed)
    while len(x) < n:
        # The gradient of a class's score in a linear model is its centre.
        x = np.concatenate([x, x + 0.3 * np.sign(CENTRES[y])]).astype(np.float32)
        y = (x @ CENTRES.T).argmax(1)
    return x[:n], y[:n]


@pytest.fixture(scope="module")
def settings() -> Settings:
    x, y = natural(60 * QUERIES, 0)
    return calibrated(SETTINGS, x, y, queries=QUERIES, seed=5)


@pytest.mark.parametrize("n", [6, 7, 30, 499, 5000])
@pytest.mark.parametrize("kind", ["normal", "exponential", "random", "cauchy"])
def test_w_is_that_of_the_books(n: int, kind: str) -> None:
    rng = np.random.default_rng(n)
    x = rng.standard_cauchy(n) if kind == "cauchy" else getattr(rng, kind)(size=n)
    assert shapiro_wilk(x) == pytest.approx(shapiro(x).statistic, abs=1e-7)
    assert shapiro_wilk(3 * x - 7) == pytest.approx(shapiro_wilk(x), abs=1e-7)
    assert shapiro_wilk(np.full(n, x[0])) == 0


def reference(x: Array, classes: Array) -> list[float]:
    """The distances that the paper's algorithm collects, written down as it is there."""
    growing: dict[int, list[Array]] = {}
    apart: dict[int, list[float]] = {}
    threshold: dict[int, float] = {}
    distances = []
    for point, label in zip(x, classes.tolist(), strict=True):
        if label not in growing:
            growing[label], apart[label], threshold[label] = [point], [0.0], 0.0
            continue
        nearest = min(float(np.linalg.norm(point - other)) for other in growing[label])
        distances.append(nearest)
        if nearest > threshold[label]:
            growing[label].append(point)
            apart[label].append(nearest)
            found = np.asarray(apart[label])
            threshold[label] = max(threshold[label], float(found.mean() - found.std()))
    return distances


def test_distances_are_those_of_the_paper() -> None:
    x, y = augmented(120, 3)
    settings = Settings(fewest=40, last=1000, points=1000, features=32, every=1)
    prada = Prada(settings, seed=1)
    w = prada.see("a", x, y)
    wanted = reference(prada._features(x), y)
    known = prada._clients["a"]
    np.testing.assert_allclose(known.distances[: known.seen], wanted, rtol=1e-3)
    inside = np.asarray(wanted)
    inside = inside[np.abs(inside - inside.mean()) <= 3 * inside.std()]
    assert w == pytest.approx(shapiro(inside).statistic, abs=1e-3)


def test_projected_distances_are_the_real_ones_on_average() -> None:
    prada = Prada(Settings(features=256), seed=0)
    x = np.random.default_rng(0).standard_normal((400, 784)).astype(np.float32)
    projected = prada._features(x)
    ratios = np.linalg.norm(projected[::2] - projected[1::2], axis=1) / np.linalg.norm(
        x[::2] - x[1::2], axis=1
    )
    assert ratios.mean() == pytest.approx(1, abs=0.02)
    assert ratios.std() == pytest.approx(1 / np.sqrt(2 * 256), rel=0.25)


def test_augmented_queries_are_flagged_and_benign_ones_are_not(settings: Settings) -> None:
    for seed in range(5):
        prada = Prada(settings, seed=5)
        x, y = augmented(QUERIES, 100 + seed)
        assert any(
            (w := prada.see("a", x[i : i + 1], y[i : i + 1])) is not None and w < settings.least
            for i in range(QUERIES)
        )
    alarms = 0
    for seed in range(100):
        w = lowest_w(settings, *natural(QUERIES, 1000 + seed), seed=5)
        assert w is not None
        alarms += w < settings.least
    found = clopper_pearson(alarms, 100)
    assert settings.bound <= 0.25
    assert found.low <= settings.bound
    assert found.high < 0.2


def test_a_copy_by_natural_queries_is_not_seen_and_costs_its_budget(settings: Settings) -> None:
    x, y = natural(600, 99)
    assert (lowest_w(settings, x, y, seed=5) or 0) > settings.least - 0.02
    budget = AnswerBudget(100)
    flags = [budget.learn(call(), answer(1)) for _ in range(150)]
    assert [one is not None and one.flagged for one in flags] == [False] * 100 + [True] * 50


def test_the_memory_has_an_end() -> None:
    settings = Settings(fewest=20, last=50, points=64, features=8, clients=5)
    prada = Prada(settings, seed=0)
    rng = np.random.default_rng(0)
    for client in range(20):
        for number in range(3):
            x = rng.standard_normal((100, 12)).astype(np.float32)
            prada.see(f"{client}", x, np.arange(100) * (1 + number))
    assert len(prada._clients) == 5
    for known in prada._clients.values():
        assert known.points.shape == (64, 8)
        assert len(known.distances) <= 50
        assert len(known.known) <= 64


def test_clients_are_apart_and_copies_do_not_count() -> None:
    prada = Prada(Settings(fewest=20, last=40, features=16), seed=0)
    x, y = natural(30, 0)
    alone = prada.see("a", x, y)
    prada.see("b", *augmented(60, 0))
    for _ in range(5):
        assert prada.see("a", x, y) == alone
    assert prada._clients["a"].seen == 26


def test_the_seed_decides_the_directions() -> None:
    x, _ = natural(2, 0)
    one, same, other = (Prada(SETTINGS, seed=seed)._features(x) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()
    prada = Prada(SETTINGS, seed=1)
    prada.see("a", x, np.zeros(2, int))
    with pytest.raises(DataError, match="have 41 numbers, not 40"):
        prada.see("a", np.zeros((1, 41), np.float32), np.zeros(1, int))


def test_what_cannot_be_calibrated_is_told() -> None:
    x, y = natural(1000, 0)
    with pytest.raises(DataError, match="are 6 clients"):
        calibrated(SETTINGS, x, y, queries=150, seed=0)
    with pytest.raises(DataError, match="too few distances"):
        calibrated(SETTINGS, x, y, queries=50, seed=0)
    rng = np.random.default_rng(0)
    walk = (x[:1] + 1e-3 * rng.standard_cauchy((4000, 40)).cumsum(0)).astype(np.float32)
    with pytest.raises(DataError, match="no natural stream"):
        calibrated(SETTINGS, walk, np.zeros(4000, int), queries=150, seed=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Settings(least=1.0),
        lambda: Settings(fewest=5),
        lambda: Settings(fewest=300, last=200),
        lambda: Settings(points=0),
        lambda: AnswerBudget(0),
        lambda: AnswerBudget(5, seconds=0),
    ],
)
def test_settings_that_make_no_sense_are_told(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def call(x: Array | None = None, **key: Any) -> Call:
    route = Route(kind="infer", form="v2", path="/v2/models/m/infer", model="m")
    values = np.zeros((1, 4), np.float32) if x is None else x
    named = Named(name="x", datatype="FP32", values=values, parameters={})
    asked = Inference(id="", inputs=(named,), parameters={})
    return Call(route=route, key=Key(**{"id": "k", "tenant": "t", **key}), started=0.0, asked=asked)


def answer(rows: int, classes: Array | None = None) -> Answered:
    values = np.zeros(rows, np.int64) if classes is None else classes
    return Answered(answer=None, form="v2", outputs=(Output("y", "INT64", values),))  # type: ignore[arg-type]


def test_a_budget_is_of_rows_and_fills_up_again() -> None:
    now = [0.0]
    budget = AnswerBudget(100, seconds=1000, clock=lambda: now[0])

    def had(rows: int, **key: Any) -> bool:
        found = budget.learn(call(**key), answer(rows))
        assert found is not None
        return found.flagged

    assert [had(60), had(40), had(1)] == [False, False, True]
    assert not had(1, id="other")
    now[0] = 100
    assert [had(10), had(1)] == [False, True]
    now[0] = 10_000
    assert [had(100), had(1)] == [False, True]
    assert budget.learn(call(), Answered(answer=None, form="v2")) is None  # type: ignore[arg-type]


def test_many_keys_of_a_tenant_have_one_budget() -> None:
    budget = AnswerBudget(5, by="tenant", clients=2)
    flags = [budget.learn(call(id=str(i)), answer(1)) for i in range(6)]
    assert [one is not None and one.flagged for one in flags] == [False] * 5 + [True]
    for i in range(10):
        budget.learn(call(tenant=str(i)), answer(1))
    assert len(budget._had) == 2


def signals(sensor: ExtractionSensor, x: Array, y: Array, **key: Any) -> list[Signal | None]:
    return [sensor.learn(call(x[i : i + 1], **key), answer(1, y[i : i + 1])) for i in range(len(x))]


def test_the_sensor_flags_keys_but_no_declared_optimisers(settings: Settings) -> None:
    x, y = augmented(QUERIES, 3)
    sensor = ExtractionSensor(settings, seed=5, reading=Reading(shape=(40,)))
    found = signals(sensor, x, y)
    assert found[0] is None
    last = found[-1]
    assert last is not None
    assert last.flagged
    assert last.score > last.threshold == 1 - settings.least
    declared = signals(sensor, x, y, id="declared", benign_optimiser=True)[-1]
    assert declared is not None
    assert (declared.score, declared.flagged) == (last.score, False)
    # Keys of one tenant are one client, if it says so.
    together = ExtractionSensor(settings, seed=5, by="tenant")
    shared = [
        together.learn(call(x[i : i + 1], id=str(i)), answer(1, y[i : i + 1]))
        for i in range(len(x))
    ]
    assert shared[-1] is not None
    assert shared[-1].flagged


def test_pictures_are_decoded_beside_the_event_loop_and_once(settings: Settings) -> None:
    x, y = augmented(QUERIES, 3)
    x = np.clip(40 * x + 128, 0, 255).astype(np.uint8)
    on: list[bool] = []

    class Heard(Reading):
        def __call__(self, asked: Inference) -> Array:
            on.append(threading.current_thread() is threading.main_thread())
            return super().__call__(asked)

    decoding = ExtractionSensor(settings, seed=5, reading=Heard(shape=(40,)))
    plain = ExtractionSensor(settings, seed=5)

    async def of(picture: Array, label: Array) -> Signal | None:
        asked = call()
        asked.asked = pictures(as_file(picture, "PNG"))
        looked = decoding.look(asked)
        assert looked is not None
        assert await looked is None
        return decoding.learn(asked, answer(1, label))

    for i in range(QUERIES):
        said = asyncio.run(of(x[i : i + 1], y[i : i + 1]))
        assert said == plain.learn(call(x[i : i + 1]), answer(1, y[i : i + 1]))
    assert said is not None
    assert on == [False] * QUERIES
    # What could not be read was told of when it was looked at.
    damaged = call()
    damaged.asked = pictures(b"\x89PNG")
    assert decoding.learn(damaged, answer(1, y[:1])) is None
    assert plain.look(call()) is None


def test_a_client_that_copies_gets_coarse_answers() -> None:
    line = Line(
        mode="enforce", upstream=Model(), sensors=(AnswerBudget(3),), digits=0,
        standing=Standing(Ladder(actions=("coarsen", "block"), climb=1)),
    )  # fmt: skip
    guard = Guard({"m": line})

    def ask() -> list[float]:
        body = v2_body(np.linspace(0, 1, 4).reshape(1, 4))
        request = Request("POST", "/v2/models/m/infer", [], body)
        found: list[float] = json.loads(asyncio.run(guard.answer(request)).body)["outputs"][0][
            "data"
        ]
        return found

    answers = [ask() for _ in range(5)]
    assert all(0 < max(one) < 1 for one in answers[:3])
    assert all(sorted(one) == [0, 0, 1] for one in answers[3:])
    assert np.argmax(answers[0]) == np.argmax(answers[-1])


@pytest.mark.slow
def test_on_real_images_a_copy_by_augmentation_is_seen_early(sound: Any) -> None:
    if not (DATA / "mnist.npz").exists():
        pytest.skip(f"no mnist.npz in {DATA}; set WITHSTAND_DATA")
    trained = sound("mnist")
    with np.load(DATA / "mnist.npz") as file:
        x = torch.from_numpy(file["x_train"][6000:40_000:2]).float()[:, None] / 255
    with torch.no_grad():
        classes = trained.net(x).argmax(1)
    settings = calibrated(
        Settings(), x[:14_000].numpy(), classes[:14_000].numpy(), queries=500, seed=3
    )
    queries = x[-100:]
    while len(queries) < 400:
        asked = queries.clone().requires_grad_()
        scores = trained.net(asked)
        (slope,) = torch.autograd.grad(scores.amax(1).sum(), asked)
        queries = torch.cat([queries, (queries + 0.1 * slope.sign()).clamp(0, 1)])
    with torch.no_grad():
        answered = trained.net(queries).argmax(1).numpy()
    w = lowest_w(settings, queries[:250].numpy(), answered[:250], seed=3)
    assert w is not None
    assert w < settings.least
    assert settings.bound < 0.25
