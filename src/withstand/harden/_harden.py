"""Robust training of any torch module."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .._errors import ConfigError, DataError, ModelError, ThreatError, answering, one_line
from .._version import __version__
from ..attacks import Checkpoint
from ..certify.bounds import prove
from ..data import Dataset
from ..evaluate import Progress
from ..models import Defence, TorchModel, describe
from ..models._declared import own_defences
from ..stats import Interval, clopper_pearson
from ..threat import Box, Threat
from ._batches import Batches, held, judged
from ._contract import Moment, Proving, Recipe, check_recipe
from ._crafting import around, crafting, faced
from ._guard import watches
from ._identity import identity, shown
from ._result import Hardened
from ._schedule import Schedule, adam, cyclic, restarted
from ._several import withstanding
from ._training import Callback, Settings, Training

if TYPE_CHECKING:
    from torch.optim import Optimizer


_JUDGED = 512
# Places of a training at which a schedule is told from others.
_RATES = 128


def harden(
    net: nn.Module | TorchModel,
    data: Dataset | Iterable[Any],
    recipe: Recipe,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    optimizer: Callable[[Any], Optimizer] | None = None,
    schedule: Schedule | None = None,
    held_out: float | Dataset | Iterable[Any] = 0.05,
    ema: float = 0.999,
    smoothing: float = 0.0,
    growth: float = 0.0,
    start: float = 0.0,
    guard: bool | None = None,
    patience: int | None = None,
    seed: int = 0,
    domain: Sequence[float] | Box = (0.0, 1.0),
    preprocess: Callable[[Tensor], Tensor] | None = None,
    checkpoint: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress: Callable[[Progress], None] | None = None,
) -> Hardened:
    """Train a copy of a module with a recipe, and say what that cost.

    net: maps raw input (B, ...), after `preprocess`, to scores (B, K); data: a data set of classes,
    or a loader of pairs that draws from torch's own randomness, if at all; optimizer: makes one for
    some parameters, Adam at 0.002 if not given; schedule: share of its learning rate by the share
    of steps done, `cyclic` if not given, or `restarted` where the attacker is delayed; held_out:
    share of a data set, or other samples, that the weights are chosen by; ema: decay of the
    averaged weights, 0 for none; growth: share of the steps in which the radius grows; start: share
    before which the training is standard (Gupta et al. 2020); guard: watch for catastrophic
    overfitting, where not given if the recipe trains on points of one region; patience: epochs at
    the full radius without a better robust accuracy of what is held out (clean, where there is no
    attacker) after which the training ends, None for all epochs; callbacks: called with each epoch
    and the net, and one that returns True ends the training; checkpoint: interrupted, the same call
    goes on from that file and comes to the same weights, and when all is done it gives the result
    at once. Raises ConfigError, DataError, ModelError, ThreatError or
    CheckpointError.
    """
    if isinstance(net, TorchModel):
        domain, preprocess, net = net.domain, net.preprocess, net.net
    check_recipe(recipe)
    limits = {
        "epochs": (epochs, 1, None),
        "batch_size": (batch_size, 1, None),
        "patience": (1 if patience is None else patience, 1, None),
        "ema": (ema, 0, 1),
        "smoothing": (smoothing, 0, 1),
        "growth": (growth, 0, 1),
        "start": (start, 0, 1),
    }
    for name, (value, least, most) in limits.items():
        if most is None and value != int(value):
            raise ConfigError(f"{name} is {value}; give a whole number")
        # What is no number is in no range.
        if not value >= least or not (most is None or value < most):
            to = f"at least {least}" if most is None else f"from {least} to below {most}"
            raise ConfigError(f"{name} is {value}; give {to}")
    if start + growth > 1 + 1e-9:
        raise ConfigError(
            f"start is {start} and growth {growth}, so that the radius is never reached; give at "
            "most 1 together"
        )
    if not any(p.requires_grad for p in net.parameters()):
        raise ModelError("the module has no parameters that learn; set requires_grad on some")
    domain = domain if isinstance(domain, Box) else Box(domain[0], domain[1])
    net = deepcopy(net)
    whole = faced(net, preprocess)
    data, kept = held(data, held_out, seed)
    batches = Batches(source=data, batch_size=batch_size, seed=seed)
    settings = Settings(
        epochs=epochs,
        schedule=schedule or (restarted(start) if start else cyclic),
        ema=ema,
        smoothing=smoothing,
        growth=growth,
        start=start,
        guard=watches(recipe) if guard is None else guard,
        patience=patience,
        seed=seed,
        domain=domain,
    )
    before = describe(TorchModel(net))
    chosen_by = judged(kept, held_out, _JUDGED, seed)
    training = Training(whole, recipe, batches, chosen_by, settings, optimizer or adam())
    _fits(training, recipe, settings)
    asked = {
        "recipe": _named(recipe),
        **{name: _named(getattr(settings, name)) for name in Settings.__dataclass_fields__},
        "batch_size": batch_size,
        "held_out": len(kept),
        "optimizer": _optimizer(training.learner.optimizer),
    }
    provenance = {
        "withstand": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "settings": asked,
        "data": batches.digest,
        "held_out": kept.provenance.digest,
        "before": before,
        "teachers": _teachers(recipe),
    }
    saved = None
    if checkpoint is not None:
        told = (provenance, *_exactly(training, recipe, settings, preprocess))
        saved = Checkpoint(checkpoint, hashlib.sha256(repr(told).encode()).hexdigest())
    training.run(saved, callbacks, progress)
    best = training.best
    *_, robust, clean = best["standing"]
    n = len(training.judged[0])
    attacked = bool(recipe.regions or withstanding(recipe))
    model = TorchModel(net.eval(), domain=domain, preprocess=preprocess)
    return Hardened(
        net=net,
        domain=domain,
        preprocess=preprocess,
        recipe=_named(recipe),
        epoch=best["epoch"],
        weights=best["weights"],
        clean=clopper_pearson(clean, n),
        robust=clopper_pearson(robust, n) if attacked else None,
        certified=_certified(model, *training.judged, recipe),
        history=tuple(training.history),
        alarms=tuple(training.alarms),
        cost=training.meter.cost,
        provenance={**provenance, "after": describe(TorchModel(net))},
        defences=_defences(recipe),
        notes=_notes(clean, training.judged[1]),
    )


def _notes(clean: int, y: Tensor) -> tuple[str, ...]:
    most = int(y.bincount().max())
    if clean > most:
        return ()
    return (
        f"it is right on {clean} of {len(y)} held-out samples, no more than whoever always answers "
        f"the most frequent class ({most}): it has learnt nothing; try another rate, a smaller "
        "radius or more epochs",
    )


def _fits(training: Training, recipe: Recipe, settings: Settings) -> None:
    """Raise an error where net, data, domain, settings and recipe do not fit."""
    x, y = training.judged
    if not settings.domain.contains(x.cpu(), x.cpu()).all():
        raise ThreatError(
            f"inputs run from {float(x.min()):g} to {float(x.max()):g}, outside the domain "
            f"({settings.domain.describe()}); give raw inputs and preprocess, or set domain"
        )
    if settings.smoothing and _teachers(recipe):
        raise ConfigError(
            f"smoothing is {settings.smoothing}, but a teacher's answers are the labels here; take "
            "it out"
        )
    at = Moment(done=0.0, scale=1.0, noise=torch.Generator(x.device), domain=settings.domain)
    for region in recipe.regions:
        around(region, x[:8], at)
    with crafting(training.net), answering(x[:8]):
        scores = training.net(x[:8])
    if not isinstance(scores, Tensor) or scores.ndim != 2 or scores.shape[1] < 2:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ModelError(
            f"the model answered 8 inputs with {shape}; training wants scores (B, K) of at least 2 "
            "classes"
        )
    if isinstance(training.batches.source, Dataset):
        # Those that are held out may not have the label that does not fit.
        y = torch.cat((y.cpu(), torch.from_numpy(training.batches.source.y)))
    if int(y.max()) >= scores.shape[1] or int(y.min()) < 0:
        raise DataError(
            f"y runs from {int(y.min())} to {int(y.max())}, but the model has {scores.shape[1]} "
            "classes; give labels from 0 on, or a wider model"
        )


def _certified(model: TorchModel, x: Tensor, y: Tensor, recipe: Recipe) -> Interval | None:
    """The share proven in all regions of a recipe that trains for proofs."""
    if not isinstance(recipe, Proving) or not recipe.regions:
        return None
    threats = (Threat(region=region) for region in recipe.regions)
    proven = [prove(model, x, y, threat, method="crown-ibp").proven for threat in threats]
    return clopper_pearson(int(np.all(proven, axis=0).sum()), len(x))


def _exactly(
    training: Training,
    recipe: Recipe,
    settings: Settings,
    preprocess: Callable[[Tensor], Tensor] | None,
) -> list[Any]:
    """What tells this training from others in full: functions by what they give."""
    rates = [settings.schedule(place / _RATES) for place in range(_RATES)]
    seen = b""
    if preprocess is not None:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            seen = preprocess(training.judged[0][:8].clone()).cpu().numpy().tobytes()
    digest = hashlib.sha256(seen).hexdigest()
    return [identity(recipe), rates, shown(training.learner.optimizer), digest]


def _teachers(recipe: object) -> list[str]:
    """Digests of the weights of the networks that a recipe, or one inside it, holds."""
    found = []
    for value in vars(recipe).values():
        if isinstance(value, nn.Module):
            found.append(str(describe(TorchModel(value))["digest"]))
        elif is_dataclass(value):
            found += _teachers(value)
    return found


def _defences(recipe: object) -> tuple[Defence, ...]:
    """What a recipe, or one inside it, declares of the networks that it trains."""
    inner = (_defences(value) for value in vars(recipe).values() if is_dataclass(value))
    return own_defences(recipe) + tuple(defence for found in inner for defence in found)


def _named(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return one_line(shown(value), 400)


def _optimizer(optimizer: Optimizer) -> str:
    plain = {k: v for k, v in optimizer.defaults.items() if isinstance(v, int | float) and v}
    told = ", ".join(f"{name}={value}" for name, value in plain.items())
    return f"{type(optimizer).__name__}({told})"
