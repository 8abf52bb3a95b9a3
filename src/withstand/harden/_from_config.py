"""From a configuration to a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .._errors import ConfigError, DataError, ModelError, OutputError
from ..config import Config, DataConfig, HardenConfig
from ..config._harden import SEVERAL
from ..data import Dataset
from ..data import load as load_data
from ..evaluate import Progress, Report, evaluate, threat_from, training_cost, write
from ..evidence import content_digest
from ..models import TorchModel, load_model
from ..threat import L0, L1, L2, Budget, Frozen, Goal, Linf, Region, Threat, Untargeted
from ..threat.tabular import Capability
from ._active import ActivePGD
from ._awp import AWP
from ._certified import IBP, MTLIBP, CrownIBP, ibp_weights
from ._contract import Recipe
from ._cost import told
from ._fgsm import FGSM, NFGSM
from ._finetune import KEPT_OUT, Finetuned, finetune, unseen
from ._harden import harden
from ._noise import NoiseAugmented
from ._pgd import PGD
from ._result import Hardened
from ._schedule import adam, flat, sgd
from ._several import Alternating, Average, Worst
from ._show import union_of
from ._standard import Standard
from ._tabular import Tabular
from ._trades import TRADES

_BALLS: dict[str, Callable[[float], Region]] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
_STEPS = 7
_CLEAN = _SHARE = 0.5
_CALM, _BETA = ActivePGD.calm, TRADES.beta
_STEPPING = ("pgd", "active", "mtl_ibp", *SEVERAL, "tabular", "trades")
_PROVING = ("ibp", "crown_ibp", "mtl_ibp")
_GROWTH = 0.2
# Losses over bounds only begin when the radius has grown.
_PROVING_GROWTH, _PROVING_FLAT = 0.5, 0.6
_RATES = {"adam": 2e-3, "sgd": 0.1}
_FINE_RATES = {"adam": 5e-4, "sgd": 0.01}


class HardenSetup(NamedTuple):
    """A module with its domain, training data, a recipe, and what else `harden` is given."""

    model: TorchModel
    data: Dataset
    recipe: Recipe
    training: dict[str, Any]


def from_config(config: Config, root: str | Path = ".") -> HardenSetup:
    """What a configuration describes; relative paths count from the folder `root`.

    The training starts from the model's weights, or from what its factory makes, with the seed,
    where there are none yet; recipes of bounds then draw the weights anew. Raises ConfigError,
    DataError, ModelError or ThreatError.
    """
    asked, model = config.harden, config.model
    if model.kind != "torch":
        raise ConfigError(f"model.kind is {model.kind}; `withstand harden` trains kind torch")
    weights = None if model.weights is None else Path(root) / model.weights
    if weights is not None and model.factory is not None and not weights.exists():
        model = model.model_copy(update={"weights": None})
    data = _data(config, root)
    with torch.random.fork_rng(devices=[]):
        # A factory that draws its weights gives the same ones for the same seed.
        torch.manual_seed(asked.seed)
        net = load_model(model, root, data.table)
    if not isinstance(net, TorchModel):
        raise ModelError(
            f"{model.factory} gave a {type(net).__name__}; to train it, it must give a torch module"
        )
    fine = asked.corpus is not None
    proving = asked.recipe in _PROVING and not fine
    if proving and model.weights is None:
        ibp_weights(net.net, seed=asked.seed)
    growth = _PROVING_GROWTH if proving else 0.0 if fine else _GROWTH
    rate = asked.rate or (_FINE_RATES if fine else _RATES)[asked.optimizer]
    training = {
        "epochs": asked.epochs or (3 if fine else 10),
        "batch_size": asked.batch_size,
        "optimizer": (adam if asked.optimizer == "adam" else sgd)(rate),
        "held_out": asked.held_out,
        "ema": asked.ema,
        "smoothing": asked.smoothing,
        # What is not said gives way to what is.
        "growth": min(growth, 1 - asked.start) if asked.growth is None else asked.growth,
        "schedule": flat(_PROVING_FLAT) if proving else None,
        "start": asked.start,
        "guard": asked.guard,
        "patience": asked.patience,
        "seed": asked.seed,
    }
    threat = threat_from(config, root)
    threat.region.check(data.x)
    recipe = _recipe(asked, threat.region, threat.goal)
    return HardenSetup(net, data, recipe, training)


def run_config(
    config: Config,
    root: Path,
    folder: Path,
    *,
    evaluated: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Hardened | Finetuned, list[Report], list[Path]]:
    """Train as configured, write everything into the folder, and evaluate on the configured data.

    Of several norms there is a report of each, that of threat.region first and those of the others
    in folders of their own, and union.json tells of all of them together. With a corpus the model
    is fine-tuned and checked for regressions; of the data, only what no part of the corpus that was
    trained on is made from is then evaluated. Interrupted, the same call goes on. Raises any
    WithstandError.
    """
    setup = from_config(config, root)
    data = load_data(config.data, root)
    saved = folder / "checkpoint"
    training = {**setup.training, "checkpoint": saved, "progress": progress}
    made: Hardened | Finetuned
    if config.harden.corpus is None:
        made = hardened = harden(setup.model, setup.data, setup.recipe, **training)
    else:
        corpus = root / config.harden.corpus
        made = finetune(setup.model, setup.data, corpus, setup.recipe, checked=data, **training)
        hardened = made.hardened
        data = data.take([unseen(content_digest(row), KEPT_OUT) for row in data.x])
    _forget(folder, config, root)
    files = hardened.save(folder)
    if isinstance(made, Finetuned):
        content = json.dumps(made.to_dict(), indent=2, allow_nan=False) + "\n"
        files.append(write(folder / "finetune.json", content.encode()))
    reports = []
    settings = config.evaluate
    for name, threat in _threats(config, root).items() if evaluated else ():
        report = evaluate(
            hardened.model,
            data,
            threat,
            preset=settings.preset,
            seed=settings.seed,
            budget=Budget(seconds=settings.seconds),
            batch_size=settings.batch_size or 64,
            severity=settings.severity,
            checkpoint=folder / f"checkpoint-evaluation{name}",
            progress=progress,
        )
        report = replace(report, training=training_cost(told(hardened.cost)))
        files += report.save(folder / name)
        reports.append(report)
    if len(reports) > 1:
        content = json.dumps(union_of(reports), indent=2, allow_nan=False) + "\n"
        files.append(write(folder / "union.json", content.encode()))
    saved.unlink(missing_ok=True)
    return made, reports, files


def _forget(folder: Path, config: Config, root: Path) -> None:
    """Remove what an earlier run has told: it is of other weights than those to be written."""
    names = ("report.json", "report.html", "adversarial.npz", "adversarial.csv", "finetune.json",
             "union.json")  # fmt: skip
    for place in (folder / name for name in _threats(config, root)):
        for name in names:
            try:
                (place / name).unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(
                    f"{place / name} cannot be removed: {error.strerror}; give another folder"
                ) from None


def _threats(config: Config, root: Path) -> dict[str, Threat]:
    """The threat, and the same in each further ball of a recipe, by the name of its folder."""
    threat = threat_from(config, root)
    names = ["", *(f"{ball.norm}-{ball.eps:g}" for ball in config.harden.norms)]
    regions = _regions(config.harden, threat.region)
    return {name: replace(threat, region=part) for name, part in zip(names, regions, strict=True)}


def _recipe(asked: HardenConfig, region: Region, goal: Goal | None = None) -> Recipe:
    recipe, awp = _attack(asked, region, goal or Untargeted()), asked.awp
    return recipe if awp is None else AWP(recipe=recipe, gamma=awp.gamma, start=awp.start)


def _attack(asked: HardenConfig, region: Region, goal: Goal) -> Recipe:
    steps = asked.steps or _STEPS
    if asked.steps is not None and asked.recipe not in _STEPPING:
        raise ConfigError(
            f"harden.steps is only for recipe {', '.join(_STEPPING[:-1])} or {_STEPPING[-1]}, not "
            f"{asked.recipe}; take it out"
        )
    table = any(isinstance(part, Capability) for part in region)
    if table != (asked.recipe == "tabular") and asked.recipe != "standard":
        what = "has a table" if table else "has no table"
        fix = "tabular or standard" if table else "another one, or give data.table"
        raise ConfigError(f"harden.recipe is {asked.recipe} and data {what}; write {fix}")
    match asked.recipe:
        case "standard":
            return Standard()
        case "fgsm":
            return FGSM(region=region)
        case "nfgsm":
            return NFGSM(region=region)
        case "pgd":
            return PGD(region=region, steps=steps, random_start=asked.random_start)
        case "active":
            return ActivePGD(
                region=region,
                steps=steps,
                random_start=asked.random_start,
                extra=asked.extra,
                calm=_CALM if asked.calm is None else asked.calm,
            )
        case "trades":
            beta = _BETA if asked.beta is None else asked.beta
            return TRADES(region=region, steps=steps, beta=beta)
        case "noise":
            return NoiseAugmented(sigma=asked.sigma or 0.0)
        case "ibp":
            return IBP(region=region, clean=_CLEAN if asked.clean is None else asked.clean)
        case "crown_ibp":
            return CrownIBP(region=region, clean=_CLEAN if asked.clean is None else asked.clean)
        case "mtl_ibp":
            share = _SHARE if asked.share is None else asked.share
            return MTLIBP(region=region, share=share, steps=asked.steps or 1)
        case "average" | "worst" | "alternating":
            first, *further = _regions(asked, region)
            recipes = [PGD(region=first, steps=steps, random_start=asked.random_start)]
            for part, ball in zip(further, asked.norms, strict=True):
                own = asked.random_start if ball.random_start is None else ball.random_start
                one = PGD(region=part, steps=steps, step_size=ball.step_size, random_start=own)
                recipes.append(one)
            if asked.recipe == "alternating":
                return Alternating(recipes=recipes, shares=asked.shares)
            return (Average if asked.recipe == "average" else Worst)(recipes=recipes)
        case "tabular":
            return Tabular(threat=Threat(region=region, goal=goal), steps=steps)


def _regions(asked: HardenConfig, region: Region) -> list[Region]:
    """The region, and its other limits with each further ball in place of its own."""
    limits = [part for part in region if isinstance(part, Frozen)]
    further = [_BALLS[ball.norm](ball.eps) for ball in asked.norms]
    return [region, *(reduce(and_, limits, ball) for ball in further)]


def _data(config: Config, root: str | Path) -> Dataset:
    """The training data: those of the section, or the training part of data's npz."""
    if config.harden.data is not None:
        return load_data(config.harden.data, root)
    spec: DataConfig = config.data
    missing = "harden.data is missing; name what to train on, e.g. data: {kind: npz, path: t.npz}"
    if spec.kind != "npz":
        raise ConfigError(missing)
    part = spec.model_copy(update={"x": "x_train", "y": "y_train", "limit": None, "group": None})
    try:
        return load_data(part, root)
    except DataError as error:
        raise ConfigError(f"{missing} ({error})") from None
