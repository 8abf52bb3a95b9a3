"""A training that is interrupted goes on to the same weights, or is told to be another one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training import Collapse, Killed, Loader, same, small

from withstand import WithstandError, attacks
from withstand.data import Dataset, from_arrays, load_sklearn
from withstand.harden import (
    AWP,
    FGSM,
    PGD,
    Average,
    DefensiveDistillation,
    Lost,
    Moment,
    Standard,
    adam,
    flat,
    harden,
    sgd,
)
from withstand.harden._identity import identity
from withstand.threat import Linf, Mask


@pytest.fixture(scope="module")
def few() -> Dataset:
    return load_sklearn("digits", limit=260)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are written at every check, not by the clock."""
    monkeypatch.setattr(attacks.Checkpoint, "due", property(lambda self: True))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("step", "loader"), [(2, True), (4, False), (4, True), (9, False), (9, True)]
)
def test_interrupted_it_comes_to_the_same_weights(
    few: Dataset, tmp_path: Path, step: int, loader: bool
) -> None:
    held = few.take(np.arange(200, 260))
    recipe = FGSM(region=Linf(0.1))

    def trained(checkpoint: Path | None, stop: int | None = None) -> Any:
        def progress(now: Any) -> None:
            if now.done == stop:
                raise Killed

        data = Loader(few) if loader else few
        return harden(
            small(norm=True, drop=0.2),
            data,
            recipe,
            epochs=2,
            batch_size=52,
            held_out=held,
            start=0.25,
            optimizer=adam(1e-2),
            checkpoint=checkpoint,
            progress=progress,
        )

    whole, path = trained(None), tmp_path / "checkpoint"
    with pytest.raises(Killed):
        trained(path, step)
    after = trained(path)
    assert same(whole.net, after.net)
    assert whole.history == after.history
    assert whole.cost.passes == after.cost.passes
    # All is done: now it is only read.
    assert same(trained(path, 1).net, whole.net)


@pytest.mark.usefixtures("always")
def test_an_alarm_survives_an_interruption(tmp_path: Path) -> None:
    digits = load_sklearn("digits", limit=400)

    def trained(checkpoint: Path | None, stop: int | None = None) -> Any:
        def progress(now: Any) -> None:
            if now.done == stop:
                raise Killed

        recipe = Collapse(region=Linf(0.1), after=0.3)
        settings = {"epochs": 3, "batch_size": 40, "optimizer": adam(5e-3)}
        return harden(small(), digits, recipe, checkpoint=checkpoint, progress=progress, **settings)

    whole = trained(None)
    assert whole.alarms
    with pytest.raises(Killed):
        trained(tmp_path / "c", 23)
    after = trained(tmp_path / "c")
    assert after.alarms == whole.alarms
    assert same(after.net, whole.net)


@pytest.mark.usefixtures("always")
def test_patience_survives_an_interruption(few: Dataset, tmp_path: Path) -> None:
    def trained(checkpoint: Path | None, stop: int | None = None) -> Any:
        def progress(now: Any) -> None:
            if now.done == stop:
                raise Killed

        return harden(
            small(),
            few,
            Standard(),
            epochs=9,
            batch_size=52,
            patience=3,
            optimizer=sgd(1e-12),
            checkpoint=checkpoint,
            progress=progress,
        )

    path = tmp_path / "checkpoint"
    whole = trained(None)
    with pytest.raises(Killed):
        trained(path, 13)
    assert len(trained(path).history) == len(whole.history) == 4
    # All is done: now it is only read.
    assert len(trained(path, 1).history) == 4


def test_a_checkpoint_of_another_training_is_refused(few: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    harden(small(), few, Standard(), epochs=1, checkpoint=path)
    with pytest.raises(WithstandError, match="belongs to another"):
        harden(small(), few, Standard(), epochs=2, checkpoint=path)


def recipes(steps: int) -> Average:
    """More than a line can tell; the last one differs."""
    region = Linf(0.1) & Mask(np.arange(1024).reshape(1, 32, 32) < 500)
    return Average(recipes=[PGD(region=region, steps=s) for s in (1, 1, 1, 1, 1, steps)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"schedule": flat(0.5)}, {"schedule": flat(0.6)}),
        ({"preprocess": lambda x: 2 * x}, {"preprocess": lambda x: 3 * x}),
        ({"recipe": recipes(1)}, {"recipe": recipes(2)}),
        ({"optimizer": lambda p: torch.optim.Adam(p, 1e-3, (0.9, 0.99))},) * 2,
    ],
)
def test_a_checkpoint_is_of_one_schedule_preprocessing_and_recipe(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any]
) -> None:
    draw = np.random.default_rng(0)
    data = from_arrays(draw.uniform(size=(40, 1, 32, 32)).astype("f4"), draw.integers(0, 2, 40))
    net = nn.Sequential(nn.Flatten(), nn.Linear(1024, 2))
    if one is other:
        other = {"optimizer": lambda p: torch.optim.Adam(p, 1e-3, (0.8, 0.99))}

    def trained(**changes: Any) -> Any:
        given = {"recipe": Standard(), "epochs": 1, "held_out": 0.2, "guard": False, **changes}
        return harden(net, data, given.pop("recipe"), checkpoint=tmp_path / "c", **given)

    first = trained(**one)
    assert same(trained(**one).net, first.net)
    with pytest.raises(WithstandError, match="belongs to another"):
        trained(**other)


def test_a_checkpoint_knows_the_teacher_by_its_weights(few: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    one, other = small(), small()
    next(other.parameters()).data += 0.1
    harden(small(), few, AWP(recipe=DefensiveDistillation(teacher=one)), epochs=1, checkpoint=path)
    recipe = AWP(recipe=DefensiveDistillation(teacher=other))
    with pytest.raises(WithstandError, match="belongs to another"):
        harden(small(), few, recipe, epochs=1, checkpoint=path)


class Shaded:
    """A recipe that shows nothing but an address: cross-entropy of what a function makes of x."""

    regions = ()

    def __init__(self, change: Any) -> None:
        self.change, self.own = change, self

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, at: Moment) -> Lost:
        scores = net(self.change(x))
        return Lost(nn.functional.cross_entropy(scores, y), scores)


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Buffer(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def moved(self, x: Tensor) -> Tensor:
        return self.forward(x)


def times(factor: float) -> Any:
    return lambda x: factor * x


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: lambda x: 2 * x, lambda: lambda x: 3 * x),
        (lambda: lambda x: 2 * x, lambda: lambda x: 2 + x),
        (lambda: lambda x: x.abs(), lambda: lambda x: x.neg()),
        (lambda: lambda x, k=2: k * x, lambda: lambda x, k=3: k * x),
        (lambda: lambda x, *, k=2: k * x, lambda: lambda x, *, k=3: k * x),
        (lambda: times(2.0), lambda: times(3.0)),
        (lambda: lambda x: (lambda: 2 * x)(), lambda: lambda x: (lambda: 3 * x)()),
        (lambda: partial(torch.mul, other=2), lambda: partial(torch.mul, other=3)),
        (lambda: partial(times(2.0)), lambda: partial(times(3.0))),
        (lambda: Scaled(2.0), lambda: Scaled(3.0)),
        (lambda: Scaled(2.0).moved, lambda: Scaled(3.0).moved),
        (lambda: np.full(64, 2.0).__mul__, lambda: np.full(64, 2.0).__add__),
    ],
)
def test_a_recipe_is_known_by_what_it_does_wherever_it_lies_in_memory(one: Any, other: Any) -> None:
    kept = [AWP(recipe=Shaded(change)) for change in (one(), one(), other())]
    first, again, another = (repr(identity(recipe)) for recipe in kept)
    assert first == again
    assert first != another
    assert " at 0x" not in first


def test_what_a_recipe_holds_tells_it_in_full() -> None:
    long = torch.zeros(2000)
    one = torch.where(torch.arange(2000) == 1000, 1.0, 0.0)
    held = [long, one, long.double(), long[None], long.numpy(), one.numpy(), {"a": 1}, {"a": 2}]
    held += [{"b": 1}, ("a", "b"), ["a", "b"], ("b", "a"), frozenset("ab"), frozenset("ac"), None]
    assert len({repr(identity(Shaded(part))) for part in held}) == len(held)


def test_a_recipe_of_which_only_an_address_is_seen_goes_on(few: Dataset, tmp_path: Path) -> None:
    def trained(factor: float) -> Any:
        kept.append(Shaded(times(factor)))
        return harden(small(), few, kept[-1], epochs=1, checkpoint=tmp_path / "c")

    kept: list[Shaded] = []
    first = trained(0.5)
    assert trained(0.5).history == first.history
    assert " at 0x" not in first.recipe
    with pytest.raises(WithstandError, match="belongs to another"):
        trained(0.6)


_KILLED = """
import sys, time
import torch
from torch import nn
from withstand import attacks
from withstand.data import load_sklearn
from withstand.harden import FGSM, harden
from withstand.threat import Linf

attacks.Checkpoint.due = property(lambda self: True)
torch.manual_seed(0)
net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
slow = lambda now: time.sleep(float(sys.argv[2]))
data = load_sklearn("digits", limit=600)
made = harden(net, data, FGSM(region=Linf(0.1)), epochs=3, batch_size=32, progress=slow,
              checkpoint=sys.argv[1])
print(made.provenance["after"]["digest"], made.cost.passes)
"""


@pytest.mark.slow
def test_kill_9_and_the_same_weights(tmp_path: Path) -> None:
    def command(name: str, pause: float) -> list[str]:
        return [sys.executable, "-c", _KILLED, str(tmp_path / name), str(pause)]

    whole = subprocess.run(command("whole", 0), capture_output=True, text=True, check=True)
    killed = subprocess.Popen(command("killed", 0.1))
    started = time.monotonic()
    while not (tmp_path / "killed").exists() and time.monotonic() - started < 60:
        time.sleep(0.05)
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    after = subprocess.run(command("killed", 0), capture_output=True, text=True, check=True)
    assert after.stdout == whole.stdout
